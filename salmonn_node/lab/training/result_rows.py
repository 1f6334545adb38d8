"""Results of long evaluations as JSON lines, each written as it comes, so that a run that was cut off goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_rows(path: Path | None) -> list[dict[str, Any]]:
    """All rows; none when there is no file."""
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def add_row(path: Path | None, row: Mapping[str, Any]) -> None:
    """Append one row; nothing without a path."""
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
