"""A stretch of a recording as a bag of its own, with what listeners would have known when it begins."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rosbags.rosbag2 import StoragePlugin, Writer

from salmonn_node.messages.bag_writer import LATCHED, STATIC_TOPIC
from salmonn_node.replay.bag import Bag
from salmonn_node.replay.decoding import typestore_of
from salmonn_node.replay.held_before import held_before
from salmonn_node.replay.storage_file import Channel
from salmonn_node.replay.topic_choice import BESIDE
from salmonn_node.replay.topics import role_of
from salmonn_node.stream.observations import SECOND_NS

NO_HASH = "RIHS01_" + "0" * 64


@dataclass
class Cut:
    """What was copied.

    Attributes:
        copied: topic -> messages of the stretch.
        carried: topic -> earlier messages, written at its beginning because they still hold then.
        left_out: topic -> why it was not copied.
        notes: what of the recording is damaged or missing.
    """

    copied: Counter[str] = field(default_factory=Counter)
    carried: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def cut_bag(path: Path, out: Path, *, start_s: float = 0.0, duration_s: float = 0.0, all_topics: bool = False) -> Cut:
    """Copy a stretch of a recording to a new rosbag2 (MCAP).

    Latched topics (`/tf_static` among them), CameraInfo and AudioInfo from before the stretch are carried to its
    beginning. Definitions of message types are copied, so that types of your own stay readable.

    Args:
        path: a recording of ROS 2.
        out: folder to write, which must not exist; after a failure it does not.
        start_s: seconds after the recording's start.
        duration_s: seconds; 0 copies to the end.
        all_topics: copy the topics that the memory has no use for, too.

    Raises:
        FileExistsError: `out` exists.
        ValueError: negative times, no readable recording, a ROS 1 bag, or a stretch without messages.
    """
    if start_s < 0 or duration_s < 0:
        raise ValueError(f"start and duration must not be negative, got {start_s:g} s and {duration_s:g} s")
    with Bag(path) as bag, whole_or_nothing(out) as folder:
        return _copy(bag, folder, start_s, duration_s, all_topics)


def _copy(bag: Bag, folder: Path, start_s: float, duration_s: float, all_topics: bool) -> Cut:
    if any(channel.encoding == "ros1" for channel in bag.channels.values()):
        raise ValueError(f"{bag.path} is of ROS 1; make a rosbag2 of it first: rosbags-convert --src BAG --dst FOLDER")
    begin = bag.start_ns + round(start_s * SECOND_NS)
    end = begin + round(duration_s * SECOND_NS) if duration_s else bag.end_ns + 1
    done, wanted = Cut(), []
    for topic in bag.topics:
        if topic.encoding != "cdr":
            done.left_out[topic.name] = f"its messages are {topic.encoding}, expected cdr"
        elif all_topics or topic.msgtype in BESIDE or role_of(topic.name, topic.msgtype)[0]:
            wanted.append(topic.name)
        else:
            done.left_out[topic.name] = "the memory has no use for it"
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections: dict[str, Any] = {}

        def write(topic: str, log_ns: int, data: bytes) -> None:
            if topic not in connections:
                connections[topic] = _connection(writer, bag.channels[topic])
            writer.write(connections[topic], log_ns, data)

        for name, data in held_before(bag, wanted, begin):
            write(name, begin, data)
            done.carried[name] += 1
        for name, _, log_ns, data in bag.raw(begin, end, wanted):
            write(name, log_ns, data)
            done.copied[name] += 1
        if not done.copied:
            raise ValueError(f"{bag.path}: no message lies in this stretch, the recording has {bag.duration_s:.1f} s")
    done.notes = bag.notes
    return done


@contextmanager
def whole_or_nothing(folder: Path) -> Iterator[Path]:
    """A place to write a folder; it gets its name when all has been written, and is removed when that fails.

    Raises:
        FileExistsError: `folder` exists.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; name a folder that does not")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield scratch / folder.name
        (scratch / folder.name).rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _connection(writer: Writer, channel: Channel) -> Any:
    """A topic of the new bag, with the definition that the old one has of its type."""
    qos = [LATCHED] if channel.latched or channel.topic == STATIC_TOPIC else []
    try:
        store = typestore_of(channel)
        definition = channel.definition or store.generate_msgdef(channel.msgtype, ros_version=2)[0]
        digest = store.hash_rihs01(channel.msgtype)
    except ValueError:
        definition, digest = channel.definition, NO_HASH  # nobody can read it here; whoever knows the type still can
    return writer.add_connection(
        channel.topic, channel.msgtype, msgdef=definition, rihs01=digest, offered_qos_profiles=qos
    )
