"""A ROS 1 bag, through rosbags, as a storage file."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from rosbags.interfaces import ConnectionExtRosbag1
from rosbags.rosbag1 import Reader

from salmonn_node.replay.storage_file import Channel, Record, StorageError


class Ros1File:
    """An open .bag file; see `storage_file.StorageFile`.

    Raises:
        StorageError: it is no ROS 1 bag, or its recorder did not finish it.
    """

    def __init__(self, path: Path) -> None:
        self.notes: list[str] = []
        self._reader = Reader(path)
        try:
            self._reader.open()
        except Exception as error:
            # rosbags lets errors of its parser through: struct, Unicode and key errors of a damaged index.
            raise StorageError(f"{error}; `rosbag reindex` of ROS 1 mends bags that were not finished") from None
        self.channels = []
        for connection in self._reader.connections:
            extension = connection.ext
            latched = isinstance(extension, ConnectionExtRosbag1) and extension.latching == 1
            count, text = connection.msgcount, connection.msgdef.data
            self.channels.append(
                Channel(connection.id, connection.topic, connection.msgtype, "ros1", text, "msg", count, count, latched)
            )
        counted = self._reader.message_count > 0
        self.start_ns = self._reader.start_time if counted else 0
        self.end_ns = self._reader.end_time - 1 if counted else 0

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def messages(self, channels: Collection[int], start_ns: int, stop_ns: int) -> Iterator[Record]:
        """Messages of the given channels with `start_ns` <= log time < `stop_ns`, in order of log time."""
        wanted = [connection for connection in self._reader.connections if connection.id in set(channels)]
        if not wanted:
            return
        try:
            for connection, log_ns, data in self._reader.messages(wanted, start_ns, stop_ns):
                yield log_ns, connection.id, bytes(data)
        except Exception as error:  # as above
            note = f"it is damaged, what lies behind is not read: {type(error).__name__}: {error}"
            if note not in self.notes:
                self.notes.append(note)
