"""A recorded bag as observations: any rosbag2 (mcap, sqlite3, split, compressed) or ROS 1 bag, through rosbags.

What cannot be used is counted by reason and never stops the rest: unknown message types, damaged messages, a file
whose recorder died. The conversions are those of the live node (`salmonn_node.messages`).
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader

from salmonn_node.answering.grounding import Grounding
from salmonn_node.messages import (
    AudioFormat,
    MessageError,
    audio_chunk,
    audio_format,
    camera_model_from_message,
    image_frame,
    pose_from_message,
    transforms_from_message,
)
from salmonn_node.messages.bag_types import bag_typestore
from salmonn_node.replay.mcap_salvage import needs_salvage, salvage
from salmonn_node.replay.topics import (
    AUDIO_INFO_TYPE,
    CAMERA_INFO_TYPE,
    TF_TYPE,
    TopicChoice,
    camera_of_info,
    choose_topics,
)
from salmonn_node.stream.observations import AudioChunk, EncodedFrame, Pose
from salmonn_node.stream.stamp_offset import corrected

Observation = EncodedFrame | AudioChunk | Pose


class BagError(ValueError):
    """A bag that cannot be replayed; the message names the bag and the reason."""


@dataclass
class BagReport:
    """What was found in a bag.

    Attributes:
        used: topic -> messages that became observations.
        dropped: reason -> messages that did not.
        notes: sentences for the user, such as what a salvage lost.
    """

    used: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


class BagStream:
    """Observations of one bag, in the order in which they were recorded.

    Args:
        path: a rosbag2 directory, an .mcap, .db3 or .bag file.
        cameras, microphones, pose: topics to use; found by type when left out (`choose_topics`).
        map_id: name of the map that the poses refer to.
        stamp_offsets: seconds added to the stamps of a source, by its name; "pose" names the poses.
        grounding: gets the bag's CameraInfo and tf while the bag is read.

    Raises:
        BagError: the bag cannot be read, or holds neither camera nor microphone.
    """

    def __init__(
        self,
        path: Path,
        *,
        cameras: tuple[str, ...] = (),
        microphones: tuple[str, ...] = (),
        pose: str | None = None,
        map_id: str = "",
        grounding: Grounding | None = None,
        stamp_offsets: Mapping[str, float] | None = None,
    ) -> None:
        self.path = path
        self.grounding = grounding or Grounding()
        self.report = BagReport()
        self._map_id = map_id
        self._stamp_offsets = stamp_offsets or {}
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        readable = self._readable(path)
        self._reader = _open(readable, path)
        topics = self.types = {c.topic: c.msgtype for c in self._reader.connections}
        try:
            self.topics: TopicChoice = choose_topics(topics, cameras=cameras, microphones=microphones, pose=pose)
        except ValueError as error:
            raise BagError(f"{path}: {error}") from None
        if not self.topics.cameras and not self.topics.microphones:
            listed = ", ".join(f"{topic} ({msgtype})" for topic, msgtype in sorted(topics.items())) or "nothing"
            raise BagError(f"{path}: no camera and no microphone in this bag; it holds {listed}")
        if not self.topics.cameras:
            self.report.notes.append("no camera in this bag: only sound is replayed")
        if not self.topics.microphones:
            self.report.notes.append("no microphone in this bag: only pictures are replayed")
        if not self.topics.pose:
            self.report.notes.append("no pose in this bag: answers carry no position")
        self.start_ns, self.end_ns = self._reader.start_time, self._reader.end_time

    def __enter__(self) -> BagStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the bag and remove what a salvage left."""
        if self._reader.stack:
            self._reader.close()
        if self._scratch:
            self._scratch.cleanup()

    @property
    def duration_s(self) -> float:
        """Length by the recorder's clock, in seconds."""
        return max(0, self.end_ns - self.start_ns) / 1e9

    def __iter__(self) -> Iterator[tuple[int, Observation]]:
        """Pairs of the recorder's time (ns) and an observation; unusable messages are counted in `report`."""
        cameras = {topic: name for name, topic in self.topics.cameras.items()}
        microphones = {topic: name for name, topic in self.topics.microphones.items()}
        formats: dict[str, AudioFormat] = {}
        wanted = {*cameras, *microphones, self.topics.pose}
        beside = (AUDIO_INFO_TYPE, CAMERA_INFO_TYPE, TF_TYPE)
        connections = [c for c in self._reader.connections if c.topic in wanted or c.msgtype in beside]
        messages = self._reader.messages(connections=connections)
        while True:
            try:
                connection, log_ns, raw = next(messages)
            except StopIteration:
                return
            except Exception as error:  # the storage itself is damaged from here on
                self.report.dropped["damaged_storage"] += 1
                self.report.notes.append(f"the bag is damaged: {error}; what lies behind is not replayed")
                return
            if connection.msgtype == CAMERA_INFO_TYPE and camera_of_info(connection.topic) in self.grounding.cameras:
                continue  # a camera's intrinsics stay as they are
            try:
                message = self._reader.deserialize(raw, connection.msgtype)
            except Exception:
                # rosbags raises whatever its generated parser runs into: struct, index and Unicode errors.
                self.report.dropped[f"undecodable:{connection.msgtype}"] += 1
                continue
            try:
                if connection.topic in cameras:
                    observation: Observation = image_frame(message, cameras[connection.topic])
                elif connection.topic in microphones:
                    known = formats.get(_namespace(connection.topic))
                    sound = audio_chunk(message, microphones[connection.topic], known)
                    if sound is None:
                        continue
                    observation = sound
                elif connection.topic == self.topics.pose:
                    observation = pose_from_message(message, self._map_id)
                elif connection.msgtype in (CAMERA_INFO_TYPE, TF_TYPE):
                    self._ground(connection.topic, connection.msgtype, message)
                    continue
                else:
                    where = _namespace(connection.topic)
                    formats[where] = audio_format(message, formats.get(where))
                    continue
            except MessageError as error:
                self.report.dropped[error.reason] += 1
                continue
            self.report.used[connection.topic] += 1
            yield log_ns, corrected(observation, self._stamp_offsets)

    def _ground(self, topic: str, msgtype: str, message: Any) -> None:
        """Hand CameraInfo and tf to the grounding; what it refuses is counted."""
        if msgtype == CAMERA_INFO_TYPE:
            self.grounding.cameras[camera_of_info(topic)] = camera_model_from_message(message)
            return
        for transform in transforms_from_message(message):
            fate = self.grounding.frames.add(transform, static=topic.endswith("tf_static"))
            if fate not in ("taken", "transform_passed_over"):
                self.report.dropped[fate] += 1

    def _readable(self, path: Path) -> Path:
        """The path to read: the bag itself, or the closed copy of an MCAP file whose recorder died."""
        if not path.exists():
            raise BagError(f"{path}: no such file or directory")
        inner = path
        if path.is_dir() and not (path / "metadata.yaml").exists():
            files = sorted(path.glob("*.mcap"))
            if len(files) != 1:
                raise BagError(f"{path}: a directory without metadata.yaml and with {len(files)} .mcap files is no bag")
            inner = files[0]
            self.report.notes.append("metadata.yaml is missing: the MCAP file is read by itself")
        if inner.suffix != ".mcap" or inner.is_dir():
            return inner
        try:
            if not needs_salvage(inner):
                return inner
        except ValueError as error:
            raise BagError(str(error)) from None
        self._scratch = tempfile.TemporaryDirectory(prefix="salmonn-salvage-")
        rescued = salvage(inner, Path(self._scratch.name) / inner.name)
        self.report.notes.append(
            f"{inner.name} is truncated: {rescued.kept_bytes} bytes of whole records are replayed, "
            f"{rescued.lost_bytes} bytes at its end are lost"
        )
        return rescued.path


def _open(path: Path, named: Path) -> AnyReader:
    """Open a bag; types without a definition of their own are those of Jazzy and salmonn_interfaces."""
    try:
        reader = AnyReader([path], default_typestore=bag_typestore())
        reader.open()
    except Exception as error:  # rosbags lets errors of its storages through, such as sqlite3's
        raise BagError(f"{named}: cannot be read as a bag: {error}") from None
    return reader


def _namespace(topic: str) -> str:
    """The part of a topic that a microphone's sound and its AudioInfo share."""
    return topic.rsplit("/", 1)[0]
