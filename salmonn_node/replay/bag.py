"""A rosbag as a stream of observations, and what it contains; MCAP or SQLite, no ROS installation needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.highlevel import AnyReader

from salmonn_node.messages import MessageError, audio_chunk, audio_format, image_frame, pose_from_message
from salmonn_node.messages.bag_types import bag_typestore
from salmonn_node.stream.observations import SECOND_NS, AudioChunk, EncodedFrame, Pose

IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
SOUNDS = (
    "salmonn_interfaces/msg/AudioChunk",
    "audio_common_msgs/msg/AudioStamped",
    "audio_common_msgs/msg/AudioDataStamped",
)
POSES = (
    "nav_msgs/msg/Odometry",
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
)
AUDIO_INFO = "audio_common_msgs/msg/AudioInfo"


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


@dataclass(frozen=True)
class Refused:
    """A message that could not be made an observation of, and why."""

    source: str
    reason: str


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
            role, source = _role(connection.topic, connection.msgtype)
            found.append(Topic(connection.topic, connection.msgtype, connection.msgcount, role, source))
        return sorted(found, key=lambda topic: topic.name)

    def raw(self, start_ns: int = 0, stop_ns: int = 0) -> Iterator[tuple[str, str, int, bytes]]:
        """Topic, message type, log time and CDR bytes of each message in order of log time; 0 leaves an end open."""
        window: dict[str, Any] = {"start": start_ns or None, "stop": stop_ns or None}
        for connection, log_ns, data in self._reader.messages(**window):
            yield connection.topic, connection.msgtype, log_ns, data

    def observations(
        self, start_ns: int = 0, stop_ns: int = 0, *, map_id: str = ""
    ) -> Iterator[tuple[int, EncodedFrame | AudioChunk | Pose | Refused]]:
        """Log time and observation of each message that the memory has a use for, in order of log time."""
        wanted = [c for c in self._reader.connections if _role(c.topic, c.msgtype)[0] or c.msgtype == AUDIO_INFO]
        formats: dict[str, Any] = {}
        window: dict[str, Any] = {"start": start_ns or None, "stop": stop_ns or None}
        for connection, log_ns, data in self._reader.messages(wanted, **window) if wanted else ():
            role, source = _role(connection.topic, connection.msgtype)
            try:
                message = self._reader.deserialize(data, connection.msgtype)
                if connection.msgtype == AUDIO_INFO:
                    formats[_stem(connection.topic)] = audio_format(message)
                    continue
                if role == "camera":
                    yield log_ns, image_frame(message, source)
                elif role == "microphone":
                    yield log_ns, audio_chunk(message, source, formats.get(_stem(connection.topic)))
                else:
                    yield log_ns, pose_from_message(message, map_id)
            except MessageError as error:
                yield log_ns, Refused(source or role, error.reason)


def _role(topic: str, msgtype: str) -> tuple[str, str]:
    """Role and source name of a topic: `/front/image/compressed` is camera `front`."""
    parts = [part for part in topic.split("/") if part]
    if msgtype in IMAGES:
        ends = {"image", "compressed", "image_raw", "image_color", "image_rect", "image_rect_color"}
        names = [part for part in parts if part not in ends]
        return "camera", "_".join(names) or "camera"
    if msgtype in SOUNDS:
        names = [part for part in parts if part not in {"audio", "audio_stamped"}]
        return "microphone", "_".join(names) or "microphone"
    return ("pose", "") if msgtype in POSES else ("", "")


def _stem(topic: str) -> str:
    return topic.rsplit("/", 1)[0]
