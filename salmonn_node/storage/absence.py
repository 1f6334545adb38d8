"""What a memory's snapshot knows of and the disk no longer holds: the journal behind it, moments of evidence."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from salmonn_node.storage.directory import MemoryPlace
from salmonn_node.storage.snapshot import EVIDENCE, Manifest


def missing_parts(place: MemoryPlace, manifest: Manifest, held: Mapping[str, int]) -> list[str]:
    """One sentence for each part that is missing. Reads the names of the journal's segments, and changes nothing.

    A snapshot that carries its own evidence is a copy under another name; no journal has followed it yet.

    Args:
        place: the memory.
        manifest: of one of its snapshots.
        held: by modality, the number of the token after the newest moment of the evidence database.
    """
    if EVIDENCE in manifest.files:
        return []
    found = []
    segment = place.segment(manifest.segment)
    if manifest.segment and not segment.is_file():
        after = f"snapshot {manifest.number}"
        found.append(f"journal {segment.name}, which follows {after}, is missing: what came after {after} is lost")
    expected = {name: end for name, end in manifest.state["evidence"].items() if name in ("vision", "audio")}
    short = [name for name, end in sorted(expected.items()) if held.get(name, 0) < end]
    if short:
        found.append(
            f"{place.evidence.name} lacks moments of {' and '.join(short)} that snapshot {manifest.number} knew: "
            "answers about them have no picture and no place"
        )
    return found


def held_moments(path: Path) -> dict[str, int]:
    """`held` of `missing_parts`, read from a database; empty where there is none that can be read."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_read_only(path)) as database:
        rows = database.execute("SELECT modality, MAX(token_end) FROM moments GROUP BY modality").fetchall()
        return {str(name): int(end) for name, end in rows}
    return {}


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)
