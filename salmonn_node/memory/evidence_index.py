"""Evidence index: what was seen and heard, when and where, with thumbnails, in one SQLite database."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from salmonn_node.memory.evidence_queries import EvidenceQueries
from salmonn_node.memory.evidence_rows import MOMENT_COLUMNS, SCHEMA_VERSION, TABLES
from salmonn_node.stream.moment import MODALITIES, Moment
from salmonn_node.stream.observations import Interval, Pose


class EvidenceIndex(EvidenceQueries):
    """Moments and poses of a stream. Their number and the bytes of thumbnails are bounded; the oldest go first.

    Threads may share one index: each call is atomic. The database is in WAL mode, so another process may read it. A
    power cut may lose what came after the last `sync`; a restore reads that again from the journal.

    Args:
        path: database file, or ":memory:" for replay and tests.
        max_moments: maximum number of moments.
        max_bytes: maximum bytes of thumbnails.
        max_poses: maximum number of poses.

    Attributes:
        problem: why the last write to disk failed, "" if it succeeded.
        failed: number of failed writes.
    """

    def __init__(
        self,
        path: str | Path = ":memory:",
        *,
        max_moments: int = 200_000,
        max_bytes: int = 2 << 30,
        max_poses: int = 1_000_000,
    ) -> None:
        for name, value in (("max_moments", max_moments), ("max_bytes", max_bytes), ("max_poses", max_poses)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.path = str(path)
        self.max_moments, self.max_bytes, self.max_poses = max_moments, max_bytes, max_poses
        self.problem, self.failed = "", 0
        self._closed = False
        super().__init__(sqlite3.connect(self.path, check_same_thread=False, isolation_level=None))
        try:
            # secure_delete overwrites forgotten rows with zeros; by default SQLite only unlinks them.
            for pragma in ("auto_vacuum=INCREMENTAL", "journal_mode=WAL", "synchronous=NORMAL", "secure_delete=ON"):
                self._db.execute(f"PRAGMA {pragma}")
            version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
            if version > SCHEMA_VERSION:
                raise ValueError(f"evidence index has schema {version}; this program knows up to {SCHEMA_VERSION}")
            self._db.executescript(TABLES)
            self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            self._count_again()
        except BaseException:
            self._db.close()
            raise

    def _count_again(self) -> None:
        row = self._db.execute("SELECT COUNT(*), COALESCE(SUM(LENGTH(thumbnail)), 0) FROM moments").fetchone()
        self._moments, self._bytes = int(row[0]), int(row[1])
        ends = dict(self._db.execute("SELECT modality, MAX(token_end) FROM moments GROUP BY modality").fetchall())
        self._ends = {name: int(ends.get(name, 0)) for name in MODALITIES}
        row = self._db.execute("SELECT COUNT(*), COALESCE(MAX(id), -1) + 1 FROM poses").fetchone()
        self._poses, self._next_pose = int(row[0]), int(row[1])

    # -- writing --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Record a disk error in `problem`. The evidence is lost, but the stream goes on."""
        try:
            yield
            self.problem = ""
        except (sqlite3.ProgrammingError, sqlite3.IntegrityError):
            raise
        except sqlite3.DatabaseError as error:  # a full disk, or a damaged page
            self.problem = f"evidence: {error}"
            self.failed += 1
            next_pose = self._next_pose
            with contextlib.suppress(sqlite3.DatabaseError):
                self._count_again()
            self._next_pose = next_pose

    def add_pose(self, pose: Pose, pose_id: int | None = None) -> int:
        """Store a pose and return its id. Ids count up from 0 in the order of the calls, unless `pose_id` gives one."""
        covariance = None if pose.covariance is None else np.asarray(pose.covariance, "<f8").tobytes()
        x, y, z = (float(v) for v in pose.position)
        with self._lock, self._told():
            number = self._next_pose if pose_id is None else pose_id
            self._next_pose = max(self._next_pose, number + 1)
            self._db.execute(
                "INSERT INTO poses VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (number, pose.stamp_ns, pose.frame_id, pose.map_id, pose.child_frame_id, x, y, z,
                 np.asarray(pose.orientation, "<f8").tobytes(), covariance),
            )  # fmt: skip
            self._poses += 1
            if self._poses > self.max_poses:
                self._db.execute("DELETE FROM poses WHERE id = (SELECT MIN(id) FROM poses)")
                self._poses -= 1
        return number

    def settle_pose(self, pose: Pose) -> None:
        """Replace the pose that was stored last for this stamp; without one, store it."""
        with self._lock:
            row = self._db.execute("SELECT MAX(id) FROM poses WHERE stamp_ns = ?", (pose.stamp_ns,)).fetchone()
        if row[0] is None:
            self.add_pose(pose)
            return
        covariance = None if pose.covariance is None else np.asarray(pose.covariance, "<f8").tobytes()
        orientation = np.asarray(pose.orientation, "<f8").tobytes()
        with self._lock, self._told():
            self._db.execute(
                "UPDATE poses SET frame_id = ?, map_id = ?, child_frame_id = ?, x = ?, y = ?, z = ?, orientation = ?, "
                "covariance = ? WHERE id = ?",
                (pose.frame_id, pose.map_id, pose.child_frame_id, *(float(v) for v in pose.position), orientation,
                 covariance, row[0]),
            )  # fmt: skip

    def add(self, moment: Moment) -> None:
        """Store a moment. It replaces a moment with the same modality and `token_start`.

        Raises:
            ValueError: the modality is unknown, or the token range is empty.
        """
        if moment.modality not in MODALITIES:
            raise ValueError(f"modality must be one of {MODALITIES}, got {moment.modality!r}")
        if not 0 <= moment.token_start < moment.token_end:
            raise ValueError(f"token range [{moment.token_start}, {moment.token_end}) is empty or negative")
        key = (moment.modality, moment.token_start)
        with self._lock, self._told(), self._db:
            self._db.execute("BEGIN")
            old = self._db.execute(
                "SELECT LENGTH(thumbnail) FROM moments WHERE modality = ? AND token_start = ?", key
            ).fetchone()
            if old is not None:
                self._db.execute("DELETE FROM moments WHERE modality = ? AND token_start = ?", key)
                self._moments, self._bytes = self._moments - 1, self._bytes - int(old[0])
            self._db.execute(
                f"INSERT INTO moments ({MOMENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*key, moment.token_end, moment.interval.start_ns, moment.interval.end_ns, moment.source,
                 moment.frame_id, None if moment.pose_id < 0 else moment.pose_id, moment.thumbnail),
            )  # fmt: skip
            self._moments, self._bytes = self._moments + 1, self._bytes + len(moment.thumbnail)
            self._ends[moment.modality] = max(self._ends[moment.modality], moment.token_end)
            while self._moments > 1 and (self._moments > self.max_moments or self._bytes > self.max_bytes):
                self._drop_oldest()

    def sizes(self) -> dict[str, int]:
        """Numbers of moments and poses, and bytes of thumbnails."""
        with self._lock:
            return {"moments": self._moments, "poses": self._poses, "thumbnail_bytes": self._bytes}

    # -- keeping and forgetting -------------------------------------------------------------------------------------

    def position(self) -> dict[str, int]:
        """Return the next token of each modality and the next pose id, for `rewind`."""
        with self._lock:
            return {**self._ends, "pose": self._next_pose}

    def rewind(self, position: dict[str, int]) -> None:
        """Drop everything stored after `position`. A restore does so before it replays the journal."""
        with self._lock, self._db:
            self._db.execute("BEGIN")
            for name in MODALITIES:
                self._db.execute(
                    "DELETE FROM moments WHERE modality = ? AND token_start >= ?", (name, position.get(name, 0))
                )
            self._db.execute("DELETE FROM poses WHERE id >= ?", (position.get("pose", 0),))
        with self._lock:
            self._count_again()
            self._next_pose = max(self._next_pose, position.get("pose", 0))

    def forget(self, interval: Interval) -> int:
        """Erase an interval's moments, thumbnails and poses from database and WAL. Return the number of moments."""
        with self._lock:
            with self._db:
                self._db.execute("BEGIN")
                gone = self._db.execute(
                    "DELETE FROM moments WHERE end_ns >= ? AND start_ns <= ?", (interval.start_ns, interval.end_ns)
                ).rowcount
                self._db.execute(
                    "DELETE FROM poses WHERE stamp_ns BETWEEN ? AND ?", (interval.start_ns, interval.end_ns)
                )
            next_pose = self._next_pose
            self._count_again()
            self._next_pose = next_pose
            self._wipe_wal()
        return int(gone)

    def clear(self) -> None:
        """Erase everything from database and WAL. Pose ids start from 0 again."""
        with self._lock:
            with self._db:
                self._db.execute("BEGIN")
                self._db.execute("DELETE FROM moments")
                self._db.execute("DELETE FROM poses")
            self._count_again()
            self._wipe_wal()

    def sync(self) -> None:
        """Write everything so far to disk (WAL checkpoint and fsync). Other threads may read and write meanwhile."""
        if self.path != ":memory:":
            beside = sqlite3.connect(self.path, isolation_level=None)
            try:
                beside.execute("PRAGMA wal_checkpoint(PASSIVE)")
            finally:
                beside.close()

    @staticmethod
    def check(path: Path) -> str:
        """Check the database at `path`. Return what is wrong, or "". Reads every page and changes nothing."""
        try:
            db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
            try:
                rows = [str(row[0]) for row in db.execute("PRAGMA integrity_check(3)")]
            finally:
                db.close()
        except sqlite3.Error as error:
            return str(error)
        return "" if rows == ["ok"] else "; ".join(rows)

    def damage(self) -> str:
        """Look for damaged pages. Return what is wrong, or "". Reads every page, but does not compare the indices."""
        try:
            with self._lock:
                rows = [str(row[0]) for row in self._db.execute("PRAGMA quick_check(3)")]
        except sqlite3.DatabaseError as error:
            return str(error)
        return "" if rows == ["ok"] else "; ".join(rows)

    def _wipe_wal(self) -> None:
        self._db.execute("PRAGMA incremental_vacuum")
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def shrink(self, max_bytes: int) -> int:
        """Drop the oldest moments until `max_bytes` of thumbnails remain, and free the space. Return how many went."""
        with self._lock:
            before = self._moments
            with self._db:
                self._db.execute("BEGIN")
                while self._moments and self._bytes > max_bytes:
                    self._drop_oldest()
            if self._moments < before:
                self._wipe_wal()
            return before - self._moments

    def _drop_oldest(self) -> None:
        number, size = self._db.execute(
            "SELECT id, LENGTH(thumbnail) FROM moments ORDER BY start_ns, id LIMIT 1"
        ).fetchone()
        self._db.execute("DELETE FROM moments WHERE id = ?", (number,))
        self._moments, self._bytes = self._moments - 1, self._bytes - int(size)

    def copy_to(self, path: str | Path) -> None:
        """Write a consistent copy of the database to `path`, replacing any file there."""
        with self._lock, sqlite3.connect(path) as target:
            self._db.backup(target)
        target.close()

    def copy_from(self, path: str | Path) -> None:
        """Replace the content by that of another index."""
        source = sqlite3.connect(f"file:{Path(path)}?mode=ro", uri=True)
        try:
            with self._lock:
                source.backup(self._db)
                self._count_again()
        finally:
            source.close()

    def close(self) -> None:
        """Sync and close. You cannot use the index afterwards."""
        with self._lock:
            if not self._closed:
                self._closed = True
                try:
                    self._wipe_wal()
                finally:
                    self._db.close()
