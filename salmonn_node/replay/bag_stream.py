"""A recording as observations, in the order in which they were recorded, with an account of every message.

What cannot be used is counted by topic and reason and never stops the rest. The conversions are those of the live node
(`salmonn_node.messages`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from salmonn_node.answering.grounding import Grounding
from salmonn_node.messages import (
    AudioFormat,
    CameraPictures,
    MessageError,
    audio_chunk,
    audio_format,
    camera_model_from_message,
    message_stamp_ns,
    pose_from_message,
    shows_rectified,
    transforms_from_message,
)
from salmonn_node.replay.account import Account
from salmonn_node.replay.bag import Bag
from salmonn_node.replay.decoding import ENCODINGS
from salmonn_node.replay.held_before import held_before
from salmonn_node.replay.recording_files import BagError
from salmonn_node.replay.recording_part import RecordingPart
from salmonn_node.replay.topic_choice import FROM_TF, TopicChoice, choose_topics
from salmonn_node.replay.topics import UNREAD, role_of
from salmonn_node.stream.observations import SECOND_NS, AudioChunk, EncodedFrame, Pose
from salmonn_node.stream.stamp_offset import corrected
from salmonn_node.stream.tf_poses import TfPoses

Observation = EncodedFrame | AudioChunk | Pose
Converter = Callable[[Any], Observation | list[Pose] | None]


class BagStream:
    """Observations of one recording, in the order in which they were recorded; use it in a `with` statement.

    Args:
        path: a rosbag2 directory, an .mcap, .db3 or .bag file.
        cameras, microphones, pose: topics to use; found when left out (`topic_choice.choose_topics`).
        map_id: name of the map that the poses refer to.
        grounding: gets the recording's CameraInfo and tf while it is read.
        stamp_offsets: seconds added to the stamps of a source, by its name; "pose" names the poses.
        part: the part of the recording to read.

    Attributes:
        topics: what is read, and why.
        types: topic -> message type, of all topics.
        report: what became of the messages.
        start_ns, end_ns: log times between which messages are read.

    Raises:
        BagError: the recording cannot be read, or holds neither camera nor microphone.
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
        part: RecordingPart | None = None,
    ) -> None:
        self.path = path
        self.grounding = grounding or Grounding()
        self.report = Account()
        self._map_id = map_id
        self._stamp_offsets = stamp_offsets or {}
        part = part or RecordingPart()
        self._bag = Bag(path, part.takes)
        try:
            self.start_ns, self._stop_ns = self._select(part)
            self.topics = self._choose(cameras, microphones, pose)
        except BaseException:
            self._bag.close()
            raise
        self.types = {topic.name: topic.msgtype for topic in self._bag.topics}
        self.end_ns = min(self._stop_ns - 1, self._bag.end_ns)

    def __enter__(self) -> BagStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the recording."""
        self._bag.close()

    @property
    def duration_s(self) -> float:
        """Length by the recorder's clock, in seconds."""
        return (self.end_ns - self.start_ns) / SECOND_NS

    def __iter__(self) -> Iterator[tuple[int, Observation]]:
        """Pairs of the recorder's time (ns) and an observation; `report` counts every message."""
        converters = self._converters()
        self.report.expect((t.name, t.promised) for t in self._bag.topics if t.name in converters)
        if self.report.partial:
            self._hear_earlier(converters)
        for topic, _, log_ns, data in self._bag.raw(self.start_ns, self._stop_ns, converters):
            account = self.report.topics[topic]
            account.read += 1
            try:
                observation = converters[topic](self._bag.decode(topic, data))
            except MessageError as error:
                self.report.leave_out(topic, error.reason, str(error))
                continue
            except ValueError as error:
                self.report.leave_out(topic, "undecodable", str(error))
                continue
            account.used += 1
            for one in observation if isinstance(observation, list) else (observation,):
                if one is not None:
                    yield log_ns, corrected(one, self._stamp_offsets)
        self.report.complete = True
        self._note_files()

    def _select(self, part: RecordingPart) -> tuple[int, int]:
        """Log times (first, stop) of what is read; tells what is not."""
        names = {topic.name for topic in self._bag.topics}
        missing = sorted({*part.topics, *part.exclude_topics} - names - set(self._bag.left_out))
        if missing:
            has = ", ".join(sorted(names | set(self._bag.left_out)))
            raise BagError(f"{self.path}: no such topic in the bag: {', '.join(missing)}; it has: {has}")
        try:
            first, stop = part.stretch(self._bag.start_ns, self._bag.end_ns)
        except ValueError as error:
            raise BagError(f"{self.path}: {error}") from None
        if self._bag.left_out:
            self.report.notes.append(f"left out by --topics or --exclude-topics: {', '.join(self._bag.left_out)}")
        self.report.partial = part.stretched
        if part.stretched:
            offset_s, length_s = (first - self._bag.start_ns) / SECOND_NS, (stop - first) / SECOND_NS
            whole_s = self._bag.duration_s
            self.report.notes.append(
                f"a stretch is read: {length_s:.1f} s from {offset_s:.1f} s on, of {whole_s:.1f} s"
            )
        return first, stop

    def _hear_earlier(self, converters: Mapping[str, Converter]) -> None:
        """Hear what was said before the stretch and still holds in it: cameras, static frames, formats of sound."""
        for topic, data in held_before(self._bag, {*self.topics.beside, *self.topics.infos.values()}, self.start_ns):
            # What cannot be used of it is no message of the stretch, and so is not counted.
            with contextlib.suppress(ValueError):
                converters[topic](self._bag.decode(topic, data))

    def sound(self, source: str, start_ns: int, end_ns: int) -> Iterator[AudioChunk]:
        """The chunks of one microphone between two log times; those that cannot be read are left out."""
        topic = self.topics.microphones.get(source)
        if topic is None:
            return
        beside = [name for name, what in self.topics.beside.items() if what == "audio_info"]
        converters = {name: made for name, made in self._converters().items() if name in (topic, *beside)}
        for name in beside:  # AudioInfo comes once, at the start
            for _, _, _, data in self._bag.raw(topics=[name]):
                with contextlib.suppress(ValueError):
                    converters[name](self._bag.decode(name, data))
        for _, _, _, data in self._bag.raw(max(0, start_ns), end_ns, [topic]):
            with contextlib.suppress(ValueError):
                chunk = converters[topic](self._bag.decode(topic, data))
                if isinstance(chunk, AudioChunk):
                    yield corrected(chunk, self._stamp_offsets)

    def _choose(self, cameras: tuple[str, ...], microphones: tuple[str, ...], pose: str | None) -> TopicChoice:
        try:
            chosen = choose_topics(self._bag, cameras=cameras, microphones=microphones, pose=pose)
        except ValueError as error:
            raise BagError(f"{self.path}: {error}") from None
        if not chosen.cameras and not chosen.microphones:
            listed = ", ".join(f"{topic.name} ({topic.msgtype})" for topic in self._bag.topics) or "nothing"
            raise BagError(f"{self.path}: no camera and no microphone in this bag; it holds {listed}")
        self._note_files()
        self.report.notes += chosen.reasons
        for topic, reason in chosen.ignored.items():
            told = self.report.notes if self._may_matter(topic) else self.report.details
            told.append(f"{topic} is not used: {reason}")
        if not chosen.cameras:
            self.report.notes.append("no camera in this bag: only sound is replayed")
        if not chosen.microphones:
            self.report.notes.append("no microphone in this bag: only pictures are replayed")
        if not chosen.pose:
            self.report.notes.append("no pose in this bag: answers carry no position")
        return chosen

    def _may_matter(self, topic: str) -> bool:
        """Whether a user may have expected that a topic is used."""
        channel = self._bag.channels[topic]
        looks_like_one = role_of(topic, channel.msgtype)[0] or channel.msgtype in UNREAD
        return channel.encoding not in ENCODINGS or bool(looks_like_one)

    def _note_files(self) -> None:
        self.report.notes += [note for note in self._bag.notes if note not in self.report.notes]

    # -- conversions ----------------------------------------------------------------------------------------------

    def _converters(self) -> dict[str, Converter]:
        """What makes an observation of a message, by topic; None for what is heard beside them."""
        found: dict[str, Converter] = {}
        formats: dict[str, AudioFormat] = {}
        poses = TfPoses(self.grounding.frames, *self.topics.pose_frames, map_id=self._map_id)
        for topic, what in self.topics.beside.items():
            found[topic] = self._hear_tf(topic, poses) if what == "tf" else self._hear_format(topic, formats)
        for source, topic in self.topics.infos.items():
            found[topic] = self._hear_camera(source, shows_rectified(self.topics.cameras[source]), found.get(topic))
        for source, topic in self.topics.cameras.items():
            found[topic] = CameraPictures(source)
        for source, topic in self.topics.microphones.items():
            found[topic] = self._sound(source, topic, formats)
        if self.topics.pose and self.topics.pose != FROM_TF:
            found[self.topics.pose] = lambda message: pose_from_message(message, self._map_id)
        return found

    def _sound(self, source: str, topic: str, formats: dict[str, AudioFormat]) -> Callable[[Any], Observation | None]:
        return lambda message: audio_chunk(message, source, formats.get(_namespace(topic)))

    def _hear_format(self, topic: str, formats: dict[str, AudioFormat]) -> Callable[[Any], None]:
        def hear(message: Any) -> None:
            where = _namespace(topic)
            formats[where] = audio_format(message, formats.get(where))

        return hear

    def _hear_camera(self, source: str, rectified: bool, also: Converter | None) -> Callable[[Any], None]:
        offset_ns = round(self._stamp_offsets.get(source, 0.0) * SECOND_NS)

        def hear(message: Any) -> None:
            model = camera_model_from_message(message, rectified=rectified)
            self.grounding.cameras.add(source, message_stamp_ns(message) + offset_ns, model)
            if also is not None:  # two cameras, such as raw and rectified pictures, share one CameraInfo
                also(message)

        return hear

    def _hear_tf(self, topic: str, poses: TfPoses) -> Callable[[Any], list[Pose]]:
        def hear(message: Any) -> list[Pose]:
            refused = None
            transforms = transforms_from_message(message)
            for transform in transforms:
                fate = self.grounding.frames.add(transform, static=topic.endswith("tf_static"))
                if fate not in ("taken", "transform_passed_over"):
                    refused = MessageError(fate, f"from {transform.frame_id} to {transform.child_frame_id}")
            made = poses.poses(transforms)
            if refused is not None and not made:
                raise refused
            return made

        return hear


def _namespace(topic: str) -> str:
    """The part of a topic that a microphone's sound and its AudioInfo share."""
    return topic.rsplit("/", 1)[0]
