"""Cut a stretch out of a bag: its messages, unchanged, in a new MCAP bag."""

from __future__ import annotations

from pathlib import Path

from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer

from salmonn_node.messages.bag_types import bag_typestore
from salmonn_node.replay.bag import Bag
from salmonn_node.stream.observations import SECOND_NS


def cut_bag(path: Path, out: Path, *, start_s: float = 0.0, duration_s: float = 0.0, all_topics: bool = False) -> int:
    """Copy what was recorded in [start, start + duration) to a new bag.

    Args:
        path: the bag to cut.
        out: folder of the new bag, which must not exist yet.
        start_s: seconds after the first message of the bag.
        duration_s: length in seconds; 0 copies to the end.
        all_topics: also copy topics that the memory does not use.

    Returns:
        Number of messages copied.

    Raises:
        FileExistsError: `out` exists already.
        ValueError: a negative time, or `path` is no bag.
    """
    if start_s < 0 or duration_s < 0:
        raise ValueError(f"start and duration must not be negative, got {start_s:g} s and {duration_s:g} s")
    refuse_existing(out)
    copied = 0
    with Bag(path) as bag, Writer(out, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        used = {t.name for t in bag.topics if t.role or all_topics}
        begin_ns = bag.start_ns + round(start_s * SECOND_NS)
        end_ns = begin_ns + round(duration_s * SECOND_NS) if duration_s else bag.end_ns
        connections: dict[str, Connection] = {}
        for topic, msgtype, log_ns, data in bag.raw(begin_ns, end_ns):
            if topic not in used:
                continue
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, msgtype, typestore=bag_typestore())
            writer.write(connections[topic], log_ns, data)
            copied += 1
    return copied


def refuse_existing(path: Path) -> None:
    """Raise FileExistsError when there is something at `path`: a bag never overwrites another."""
    if path.exists():
        raise FileExistsError(f"{path} exists already; name a folder that does not")
