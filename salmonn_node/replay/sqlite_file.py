"""A .db3 file of rosbag2 (SQLite), with what still lies in its write-ahead log; damaged pages are stepped over."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from urllib.parse import quote

from salmonn_node.replay.storage_file import Channel, Record, StorageError, is_latched, normal_type, unpacked

MAX_TRIES = 40  # damaged rows are stepped over in strides that double


class SqliteFile:
    """An open .db3 file; see `storage_file.StorageFile`. Nothing is written beside it.

    Args:
        path: the file.
        scratch: gives a folder for copies; asked only when the file's log must be worked in before it can be read.

    Raises:
        StorageError: it is no SQLite file of rosbag2, or its tables cannot be read.
    """

    def __init__(self, path: Path, scratch: Callable[[], Path]) -> None:
        self.notes: list[str] = []
        if path.stat().st_size == 0:
            raise StorageError("the file is empty")
        self._database = self._open(path, scratch)
        try:
            self.channels = self._read_channels()
        except sqlite3.Error as error:
            self._database.close()
            raise StorageError(f"not a SQLite file of rosbag2: {error}") from None
        self.start_ns, self.end_ns = self._ends()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def messages(self, channels: Collection[int], start_ns: int, stop_ns: int) -> Iterator[Record]:
        """Messages of the given channels with `start_ns` <= log time < `stop_ns`, in order of log time.

        Behind damage the order is that of recording.
        """
        ids = sorted(channels)
        where = f"topic_id IN ({','.join('?' * len(ids))}) AND timestamp >= ? AND timestamp < ?"
        columns = "SELECT id, timestamp, topic_id, data FROM messages WHERE"
        values = [*ids, start_ns, min(stop_ns, 2**63 - 1)]
        newest = (-1, -1)
        try:
            for row, log_ns, channel, data in self._database.execute(
                f"{columns} {where} ORDER BY timestamp, id", values
            ):
                newest = (log_ns, row)
                yield log_ns, channel, _whole(data)
            return
        except sqlite3.Error as error:
            self._note(f"it is damaged, the rows that can still be read are taken: {error}")
        last, step, tries = 0, 1, 0
        while tries < MAX_TRIES:
            try:
                for row, log_ns, channel, data in self._database.execute(
                    f"{columns} id > ? AND {where} ORDER BY id", [last, *values]
                ):
                    last, step, tries = row, 1, 0
                    if (log_ns, row) > newest:
                        yield log_ns, channel, _whole(data)
                return
            except sqlite3.Error:
                last, step, tries = last + step, 2 * step, tries + 1

    # -- opening --------------------------------------------------------------------------------------------------

    def _open(self, path: Path, scratch: Callable[[], Path]) -> sqlite3.Connection:
        """Open without writing; a log that only SQLite can work in is worked into a copy."""
        beside = {end: path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal")}
        logs = [file for end in ("-wal", "-journal") if (file := beside[end]).is_file() and file.stat().st_size]
        if not logs:
            return _connect(path, "immutable=1")
        self.notes.append(f"what lies in {' and '.join(file.name for file in logs)} is read with it")
        if logs == [beside["-wal"]] and beside["-shm"].is_file():
            database = _connect(path, "mode=ro&readonly_shm=1")
            try:
                database.execute("SELECT count(*) FROM sqlite_master").fetchone()
                return database
            except sqlite3.Error:
                database.close()
        folder = scratch()
        for file in (path, *logs):
            shutil.copyfile(file, folder / file.name)
        return _connect(folder / path.name, "mode=rw")

    def _read_channels(self) -> list[Channel]:
        columns = {name for _, name, *_ in self._database.execute("PRAGMA table_info(topics)")}
        if not {"id", "name", "type"} <= columns:
            raise sqlite3.DatabaseError("it has no table of topics")
        optional = [name if name in columns else "''" for name in ("serialization_format", "offered_qos_profiles")]
        counts: dict[int, int] | None
        try:
            counts = dict(self._database.execute("SELECT topic_id, count(*) FROM messages GROUP BY topic_id"))
        except sqlite3.Error as error:
            counts = None
            self.notes.append(f"the file is damaged, its messages cannot be counted: {error}")
        definitions = self._definitions()
        found = []
        for number, topic, kind, encoding, profiles in self._database.execute(
            f"SELECT id, name, type, {', '.join(optional)} FROM topics ORDER BY id"
        ):
            coding, text = definitions.get(kind, ("", ""))
            promised = None if counts is None else counts.get(number, 0)
            found.append(
                Channel(
                    number,
                    topic,
                    normal_type(kind),
                    encoding or "cdr",
                    text,
                    {"ros2msg": "msg", "ros2idl": "idl"}.get(coding, ""),
                    promised,
                    promised or 0,
                    is_latched(profiles),
                )
            )
        return found

    def _definitions(self) -> dict[str, tuple[str, str]]:
        """Coding and text of the message definitions by type; files from before Iron have none."""
        query = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
        try:
            return {name: (coding, text) for name, coding, text in self._database.execute(query)}
        except sqlite3.Error:
            return {}

    def _ends(self) -> tuple[int, int]:
        try:
            first, last = self._database.execute("SELECT min(timestamp), max(timestamp) FROM messages").fetchone()
        except sqlite3.Error:
            return 0, 0
        return first or 0, last or 0

    def _note(self, text: str) -> None:
        if text not in self.notes:  # a file is read more than once
            self.notes.append(text)


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path.resolve()))}?{mode}", uri=True, check_same_thread=False)


def _whole(data: bytes) -> bytes:
    """A message decompressed; empty where that fails: whoever decodes it counts it."""
    try:
        return unpacked(bytes(data))
    except ValueError:
        return b""
