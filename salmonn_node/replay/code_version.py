"""The version of the code that answers: the package's version and a digest of its source files."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import salmonn_node

# What no memory of a recording and no answer of a replay depends on.
OTHERS = {"client", "ros", "live", "ui", "lab", "commands", "cli.py"}


@functools.cache
def code_version() -> str:
    """The version as text, such as `0.1.0+3f2a9c01d4e5`. Any change of a source file that answers need changes it."""
    root = Path(salmonn_node.__file__).parent
    total = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        place = path.relative_to(root)
        if place.parts[0] not in OTHERS:
            total.update(f"{place.as_posix()}\n".encode() + path.read_bytes())
    return f"{salmonn_node.__version__}+{total.hexdigest()[:12]}"
