"""Read what can still be read of a damaged evidence database, row by row."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from salmonn_node.memory.evidence_index import EvidenceIndex
from salmonn_node.memory.evidence_rows import MOMENT_COLUMNS, read_moment, read_pose

POSE_COLUMNS = "id, stamp_ns, frame_id, map_id, child_frame_id, x, y, z, orientation, covariance"


JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"


def salvage(damaged: Path, index: EvidenceIndex) -> tuple[int, int, int]:
    """Copy the rows of a damaged database into an empty index. A picture that is no whole JPEG is left out.

    Args:
        damaged: the database file. It is not changed.
        index: an empty index. It keeps the ids of the poses.

    Returns:
        Numbers of rows that were copied, of rows that could not be read, and of pictures that were left out.
    """
    copied = lost = pictures = 0
    with contextlib.closing(sqlite3.connect(f"file:{damaged}?mode=ro", uri=True)) as db:
        for row in _rows(db, "poses", POSE_COLUMNS):
            done = row is not None and _added(lambda row=row: index.add_pose(read_pose(row), row[0]))
            copied, lost = copied + done, lost + (not done)
        for row in _rows(db, "moments", MOMENT_COLUMNS):
            whole = row is None or not row[-1] or _is_jpeg(row[-1])
            pictures += not whole
            row = row if whole or row is None else (*row[:-1], b"")
            done = row is not None and _added(lambda row=row: index.add(read_moment(row)))
            copied, lost = copied + done, lost + (not done)
    return copied, lost, pictures


def _is_jpeg(picture: object) -> bool:
    return isinstance(picture, bytes) and picture.startswith(JPEG_START) and picture.endswith(JPEG_END)


def _added(add: Any) -> bool:
    """Whether a row made sense: damaged bytes may read as a row that no index holds."""
    try:
        add()
    except (ValueError, TypeError, sqlite3.DatabaseError):
        return False
    return True


def _rows(db: sqlite3.Connection, table: str, columns: str) -> Iterator[tuple[Any, ...] | None]:
    """Yield each row of a table by its id, and None for one on a damaged page."""
    try:
        first, last = db.execute(f"SELECT MIN(id), MAX(id) FROM {table}").fetchone()
    except sqlite3.DatabaseError:
        return
    for number in range(first, last + 1) if first is not None else ():
        try:
            row = db.execute(f"SELECT {columns} FROM {table} WHERE id = ?", (number,)).fetchone()
        except sqlite3.DatabaseError:
            yield None
        else:
            if row is not None:  # the oldest rows were dropped, and replaced rows have new ids
                yield row
