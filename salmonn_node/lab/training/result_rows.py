"""Result rows of long evaluations: JSON lines written as they come, so that an interrupted run can resume."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_rows(path: Path | None) -> list[dict[str, Any]]:
    """Read all rows. Returns an empty list if there is no file."""
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def add_row(path: Path | None, row: Mapping[str, Any]) -> None:
    """Append one row. Does nothing without a path."""
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
