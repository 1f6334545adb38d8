"""Open a memory's evidence database. If it is damaged, set it aside and go on with what can be read of it."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

from salmonn_node.memory.evidence_index import EvidenceIndex
from salmonn_node.memory.evidence_salvage import salvage
from salmonn_node.storage.directory import MemoryPlace

CHECKED_BYTES = 256 << 20  # a larger database is not read through at the start, which would take too long


def open_evidence(place: MemoryPlace, bounds: dict[str, int]) -> tuple[EvidenceIndex, list[str]]:
    """Open the evidence of a memory, or make it.

    Args:
        place: the memory.
        bounds: the bounds of the index, see EvidenceIndex.

    Returns:
        The index, and a note on each loss.

    Raises:
        OSError: the database cannot be opened or written.
    """
    size = place.evidence.stat().st_size if place.evidence.is_file() else 0
    try:
        index = EvidenceIndex(place.evidence, **bounds)
        damage = index.damage() if 0 < size <= CHECKED_BYTES else ""
        if not damage:
            return index, []
        with contextlib.suppress(sqlite3.DatabaseError):
            index.close()
    except sqlite3.OperationalError as error:
        raise OSError(f"evidence database of memory {place.name!r}: {error}") from error
    except sqlite3.DatabaseError as error:
        damage = str(error)
    aside = _set_aside(place)
    index = EvidenceIndex(place.evidence, **bounds)
    try:
        copied, lost, pictures = salvage(aside, index)
    except sqlite3.DatabaseError:
        copied = lost = pictures = 0
    saved = f"{copied} rows were saved, {lost} rows and {pictures} pictures could not be read"
    saved = saved if copied else "a new one was begun"
    return index, [f"evidence database is damaged ({damage}); set aside as {aside.name}: {saved}"]


def _set_aside(place: MemoryPlace) -> Path:
    aside = place.directory / f"evidence.damaged-{time.time_ns()}.db"
    place.evidence.rename(aside)
    # SQLite finds the write-ahead log by the name of the database.
    with contextlib.suppress(FileNotFoundError):
        Path(f"{place.evidence}-wal").rename(f"{aside}-wal")
    Path(f"{place.evidence}-shm").unlink(missing_ok=True)
    return aside
