"""What an evidence index is asked: moments by token, time and place, poses by stamp, the robot's path."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from salmonn_node.memory.evidence_rows import MOMENT_COLUMNS, read_moment, read_pose
from salmonn_node.stream.moment import Moment
from salmonn_node.stream.observations import Pose


class EvidenceQueries:
    """The queries of `EvidenceIndex`. None of them writes; threads may share one index.

    Args:
        db: the open database, with the tables of `evidence_rows`.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._lock = threading.RLock()

    def pose(self, pose_id: int) -> Pose | None:
        """The pose with this id, or None if the id is unknown."""
        if pose_id < 0:
            return None
        with self._lock:
            row = self._db.execute("SELECT * FROM poses WHERE id = ?", (int(pose_id),)).fetchone()
        return None if row is None else read_pose(row)

    def pose_at(self, stamp_ns: int) -> Pose | None:
        """The pose with exactly this stamp, or None. If there are several, the one stored last."""
        with self._lock:
            row = self._db.execute(
                "SELECT * FROM poses WHERE stamp_ns = ? ORDER BY id DESC LIMIT 1", (int(stamp_ns),)
            ).fetchone()
        return None if row is None else read_pose(row)

    def of_tokens(self, modality: str, indices: Iterable[int]) -> list[Moment | None]:
        """For each original token index, the moment it belongs to, or None if the database no longer holds it."""
        found: list[Moment | None] = []
        with self._lock:
            for index in indices:
                row = self._db.execute(
                    f"SELECT {MOMENT_COLUMNS} FROM moments WHERE modality = ? AND token_start <= ? "
                    "ORDER BY token_start DESC LIMIT 1",
                    (modality, int(index)),
                ).fetchone()
                found.append(read_moment(row) if row is not None and int(index) < row[2] else None)
        return found

    def between(
        self, after_ns: int = 0, before_ns: int = 0, *, modality: str = "", sources: Sequence[str] = (), limit: int = 0
    ) -> list[Moment]:
        """Moments that overlap [after_ns, before_ns], in time order. A bound of 0 is open; `limit` 0 means all."""
        where, values = ["end_ns >= ?"], [int(after_ns)]
        parameters: list[int | str | float] = list(values)
        if before_ns:
            where.append("start_ns <= ?")
            parameters.append(int(before_ns))
        return self._select("moments", where, parameters, modality, sources, limit)

    def near(
        self,
        position: Sequence[float],
        radius_m: float,
        *,
        frame_id: str,
        map_id: str = "",
        modality: str = "",
        sources: Sequence[str] = (),
        limit: int = 0,
    ) -> list[Moment]:
        """Moments within `radius_m` metres of `position` (x, y, z in `frame_id` of `map_id`), in time order."""
        if not radius_m >= 0:
            raise ValueError(f"radius_m must not be negative, got {radius_m}")
        x, y, z = (float(v) for v in position)
        where = [
            "p.id = pose_id AND p.map_id = ? AND p.frame_id = ? AND p.x BETWEEN ? AND ?",
            "(p.x - ?) * (p.x - ?) + (p.y - ?) * (p.y - ?) + (p.z - ?) * (p.z - ?) <= ?",
        ]
        box: list[int | str | float] = [map_id, frame_id, x - radius_m, x + radius_m]
        return self._select(
            "moments JOIN poses p", where, [*box, x, x, y, y, z, z, radius_m * radius_m], modality, sources, limit
        )

    def _select(
        self,
        tables: str,
        where: list[str],
        parameters: list[int | str | float],
        modality: str,
        sources: Sequence[str],
        limit: int,
    ) -> list[Moment]:
        if modality:
            where.append("modality = ?")
            parameters.append(modality)
        if sources:
            where.append(f"source IN ({', '.join('?' * len(sources))})")
            parameters.extend(sources)
        columns = ", ".join(f"moments.{name}" for name in MOMENT_COLUMNS.split(", "))
        query = f"SELECT {columns} FROM {tables} WHERE {' AND '.join(where)} ORDER BY start_ns, moments.id"
        with self._lock:
            rows = self._db.execute(query + (f" LIMIT {int(limit)}" if limit else ""), parameters).fetchall()
        return [read_moment(row) for row in rows]

    def nearest(self, source: str, stamp_ns: int) -> Moment | None:
        """The moment of a camera or microphone that lies nearest to a stamp; None when nothing of it is kept."""
        found = []
        for where, order in (("start_ns <= ?", "DESC"), ("start_ns > ?", "ASC")):
            query = (
                f"SELECT {MOMENT_COLUMNS} FROM moments WHERE source = ? AND {where} ORDER BY start_ns {order} LIMIT 1"
            )
            with self._lock:
                row = self._db.execute(query, (source, int(stamp_ns))).fetchone()
            found += [] if row is None else [read_moment(row)]
        return min(
            found, key=lambda m: max(m.interval.start_ns - stamp_ns, stamp_ns - m.interval.end_ns, 0), default=None
        )

    def spans(self, after_ns: int = 0, before_ns: int = 0) -> dict[tuple[str, str], npt.NDArray[np.int64]]:
        """(modality, source) -> (n, 2) first and last stamp of each moment, in order; bounds as in `between`."""
        query = (
            "SELECT modality, source, start_ns, end_ns FROM moments "
            "WHERE end_ns >= ? AND start_ns <= ? ORDER BY start_ns"
        )
        with self._lock:
            rows = self._db.execute(query, (int(after_ns), int(before_ns) or 2**63 - 1)).fetchall()
        found: dict[tuple[str, str], list[tuple[int, int]]] = {}
        for modality, source, start_ns, end_ns in rows:
            found.setdefault((modality, source), []).append((start_ns, end_ns))
        return {key: np.array(spans, np.int64) for key, spans in found.items()}

    def robot_path(self, after_ns: int, before_ns: int, most: int) -> list[Pose]:
        """At most about `most` poses in time order, evenly thinned, in map and frame of the newest one."""
        bounds = (int(after_ns), int(before_ns) or 2**63 - 1)
        with self._lock:
            newest = self._db.execute(
                "SELECT map_id, frame_id FROM poses WHERE stamp_ns BETWEEN ? AND ? ORDER BY stamp_ns DESC LIMIT 1",
                bounds,
            ).fetchone()
            if newest is None:
                return []
            # A stamp may have an early guess and the pose that settled: the one stored last counts.
            where = (
                "id IN (SELECT MAX(id) FROM poses WHERE stamp_ns BETWEEN ? AND ? GROUP BY stamp_ns) "
                "AND map_id = ? AND frame_id = ?"
            )
            count = self._db.execute(f"SELECT COUNT(*) FROM poses WHERE {where}", (*bounds, *newest)).fetchone()[0]
            step = max(1, -(-int(count) // max(1, most)))
            rows = self._db.execute(
                f"SELECT * FROM (SELECT *, ROW_NUMBER() OVER (ORDER BY stamp_ns) AS row FROM poses WHERE {where}) "
                "WHERE (row - 1) % ? = 0 ORDER BY stamp_ns",
                (*bounds, *newest, step),
            ).fetchall()
        return [read_pose(row) for row in rows]

    def digest(self) -> str:
        """SHA-256 over all moments and poses, in order. Two indices with the same content have the same digest."""
        total = hashlib.sha256()
        with self._lock:
            for row in self._db.execute(f"SELECT {MOMENT_COLUMNS} FROM moments ORDER BY modality, token_start"):
                total.update(repr(row).encode())
            for row in self._db.execute("SELECT * FROM poses ORDER BY id"):
                total.update(repr(row).encode())
        return total.hexdigest()
