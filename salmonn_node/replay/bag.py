"""What a rosbag contains, and its messages as bytes; MCAP or SQLite, no ROS installation needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.highlevel import AnyReader

from salmonn_node.messages.bag_types import bag_typestore
from salmonn_node.replay.topics import role_of
from salmonn_node.stream.observations import SECOND_NS


@dataclass(frozen=True)
class Topic:
    """One topic of a bag.

    Attributes:
        name, msgtype: as recorded.
        count: messages.
        role: "camera", "microphone", "pose", or "" when the memory has no use for it.
        source: name of the camera or microphone.
    """

    name: str
    msgtype: str
    count: int
    role: str
    source: str


class Bag:
    """An open bag; use it in a `with` statement.

    Args:
        path: folder of a rosbag2, or an .mcap or .db3 file in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if self.path.is_file():
            self.path = self.path.parent
        if not (self.path / "metadata.yaml").is_file():
            raise FileNotFoundError(f"{path} is not a rosbag2: it has no metadata.yaml")
        self._reader = AnyReader([self.path], default_typestore=bag_typestore())

    def __enter__(self) -> Bag:
        self._reader.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._reader.close()

    @property
    def start_ns(self) -> int:
        """Log time of the first message."""
        return int(self._reader.start_time)

    @property
    def end_ns(self) -> int:
        """Log time just after the last message."""
        return int(self._reader.end_time)

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return (self.end_ns - self.start_ns) / SECOND_NS

    @property
    def topics(self) -> list[Topic]:
        """All topics, by name."""
        found = []
        for connection in self._reader.connections:
            role, source = role_of(connection.topic, connection.msgtype)
            found.append(Topic(connection.topic, connection.msgtype, connection.msgcount, role, source))
        return sorted(found, key=lambda topic: topic.name)

    def raw(self, start_ns: int = 0, stop_ns: int = 0) -> Iterator[tuple[str, str, int, bytes]]:
        """Topic, message type, log time and CDR bytes of each message in order of log time; 0 leaves an end open."""
        window: dict[str, Any] = {"start": start_ns or None, "stop": stop_ns or None}
        for connection, log_ns, data in self._reader.messages(**window):
            yield connection.topic, connection.msgtype, log_ns, data
