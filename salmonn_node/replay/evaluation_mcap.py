"""A whole evaluation on one timeline: the recording's messages, copied raw, with what the memory said beside them.

Topics are those of a running node, so that one layout shows both.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mcap.writer import CompressionType, Writer

from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.messages.bag_types import bag_typestore
from salmonn_node.messages.base import MessageError
from salmonn_node.messages.questions import checked_question
from salmonn_node.replay.bag import Bag
from salmonn_node.replay.decoding import typestore_of
from salmonn_node.replay.evaluation_topics import LATCHED, Evaluation, Written, said
from salmonn_node.replay.held_before import held_before
from salmonn_node.replay.recording_part import RecordingPart
from salmonn_node.replay.storage_file import Channel, in_time_order
from salmonn_node.replay.video_stream import is_video

# A recording that was made beside a running node has topics of the first name already.
NAMESPACES = ("/salmonn", "/salmonn_replay")
LATCHED_QOS = (
    "- history: keep_last\n  depth: 1\n  reliability: reliable\n  durability: transient_local\n"
    "  deadline: {sec: 9223372036, nsec: 854775807}\n  lifespan: {sec: 9223372036, nsec: 854775807}\n"
    "  liveliness: automatic\n  liveliness_lease_duration: {sec: 9223372036, nsec: 854775807}\n"
    "  avoid_ros_namespace_conventions: false\n"
)


def check_target(path: Path, recording: Path, questions: Iterable[QuestionRecord]) -> None:
    """Refuse what could not be written later.

    Raises:
        ValueError: another ending than .mcap, a recording that is no rosbag2, or a question that is no message.
        FileExistsError: `path` exists.
    """
    if path.suffix != ".mcap":
        raise ValueError(f"--mcap: the file's name must end with .mcap, got {path}")
    if path.exists():
        raise FileExistsError(f"--mcap: {path} exists already; name a file that does not")
    if is_video(recording):
        raise ValueError(f"--mcap: {recording} is a video; make a bag of it first: salmonn bag make VIDEO BAG")
    with Bag(recording) as bag:
        if any(channel.encoding == "ros1" for channel in bag.channels.values()):
            raise ValueError(
                f"--mcap: {recording} is of ROS 1; make a rosbag2 of it first: rosbags-convert --src BAG --dst FOLDER"
            )
    for record in questions:
        try:
            checked_question(record.question())
        except MessageError as error:
            raise ValueError(f"--mcap: question {record.id} is none that a node would take: {error}") from None


def write_evaluation(
    path: Path, recording: Path, evaluation: Evaluation, part: RecordingPart | None = None
) -> list[str]:
    """Write an evaluation; after a failure there is no file.

    Args:
        path: file to write.
        recording: rosbag2 whose messages are copied.
        evaluation: what is written beside them.
        part: the part of it that is copied; None copies all.

    Returns:
        Sentences about what was left out, or named otherwise than a node would.

    Raises:
        BagError: the recording cannot be read.
        OSError: the file cannot be written.
    """
    part = part or RecordingPart()
    with Bag(recording, part.takes) as bag, _whole_file(path) as file:
        names = {topic.name for topic in bag.topics}
        namespace = next((n for n in NAMESPACES if not any(name.startswith(f"{n}/") for name in names)), NAMESPACES[-1])
        notes = [
            f"{path.name}: {topic.name} is not copied: its messages are {topic.encoding}, not those of ROS 2"
            for topic in bag.topics
            if topic.encoding != "cdr"
        ]
        if namespace != NAMESPACES[0]:
            notes.append(f"{path.name}: the recording has topics under /salmonn, the replay's are under {namespace}")
        writer = Writer(file, compression=CompressionType.ZSTD)
        writer.start(profile="ros2", library="salmonn_node")
        topics = _Topics(writer, bag)
        # Kept in order of time by themselves; of equal times, the recording's messages come first.
        sources = [(bag.start_ns, lambda: _copied(bag, part)), (bag.start_ns, lambda: said(evaluation, namespace))]
        damaged = 0
        for log_ns, topic, msgtype, data in in_time_order(sources):
            if data:
                topics.write(topic, msgtype, log_ns, data)
            else:
                damaged += 1
        writer.finish()
        if damaged:
            notes.append(f"{path.name}: {damaged} messages are not copied: their bytes cannot be decompressed")
    return notes


def _copied(bag: Bag, part: RecordingPart) -> Iterator[Written]:
    first, stop = part.stretch(bag.start_ns, bag.end_ns)
    if part.stretched:
        for topic, data in held_before(bag, bag.channels.keys(), first):
            yield first, topic, bag.channels[topic].msgtype, data
    for topic, msgtype, log_ns, data in bag.raw(first, stop):
        yield log_ns, topic, msgtype, data


class _Topics:
    """The channels of the new file, each made when its first message comes."""

    def __init__(self, writer: Writer, bag: Bag) -> None:
        self._writer, self._bag = writer, bag
        self._schemas: dict[tuple[str, str], int] = {}
        self._channels: dict[str, int] = {}
        self._counts: dict[str, int] = {}

    def write(self, topic: str, msgtype: str, log_ns: int, data: bytes) -> None:
        """Write one message."""
        if topic not in self._channels:
            self._channels[topic] = self._channel(topic, msgtype)
        self._counts[topic] = self._counts.get(topic, -1) + 1
        self._writer.add_message(self._channels[topic], log_ns, data, publish_time=log_ns, sequence=self._counts[topic])

    def _channel(self, topic: str, msgtype: str) -> int:
        copied: Channel | None = self._bag.channels.get(topic)
        latched = copied.latched if copied is not None else topic.rpartition("/")[2] in LATCHED
        kind, text = _definition(copied, msgtype)
        if (msgtype, text) not in self._schemas:
            self._schemas[msgtype, text] = self._writer.register_schema(msgtype, kind, text.encode())
        metadata = {"offered_qos_profiles": LATCHED_QOS if latched else ""}
        return self._writer.register_channel(topic, "cdr", self._schemas[msgtype, text], metadata)


def _definition(copied: Channel | None, msgtype: str) -> tuple[str, str]:
    """Encoding and text of a message definition; empty where nobody has it."""
    if copied is not None and copied.definition:
        return {"idl": "ros2idl"}.get(copied.definition_kind, "ros2msg"), copied.definition
    try:
        store = bag_typestore() if copied is None else typestore_of(copied)
        return "ros2msg", store.generate_msgdef(msgtype, ros_version=2)[0]
    except ValueError:
        return "", ""


@contextmanager
def _whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that gets its name when all of it has been written, and is removed when that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("xb") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
