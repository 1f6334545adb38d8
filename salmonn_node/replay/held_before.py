"""What listeners know when a stretch of a recording begins, because it was sent before."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from salmonn_node.messages.bag_writer import STATIC_TOPIC
from salmonn_node.replay.bag import Bag
from salmonn_node.replay.topics import AUDIO_INFO_TYPE, CAMERA_INFO_TYPE
from salmonn_node.stream.observations import SECOND_NS

NEAR_S = 10.0  # what is sent all the time is found so shortly before the stretch


def held_before(bag: Bag, topics: Collection[str], begin: int) -> Iterator[tuple[str, bytes]]:
    """Topic and bytes of what still holds when a stretch begins: what is latched, CameraInfo and AudioInfo.

    Args:
        bag: the recording.
        topics: which of its topics.
        begin: log time at which the stretch begins.
    """
    told = {t for t in topics if bag.channels[t].msgtype in (CAMERA_INFO_TYPE, AUDIO_INFO_TYPE)}
    latched = {t.name for t in bag.topics if t.name in topics and (t.latched or t.name == STATIC_TOPIC)}
    last: dict[str, bytes] = {}
    for start in (begin - round(NEAR_S * SECOND_NS), 0):
        missing = told - latched - last.keys()
        last.update((topic, data) for topic, _, _, data in bag.raw(max(0, start), begin, missing))
    # Each publisher of /tf_static latches its own transforms: all that differ hold.
    fixed: dict[bytes, None] = {}
    for topic, _, _, data in bag.raw(0, begin, latched):
        if topic == STATIC_TOPIC:
            fixed[data] = None
        else:
            last[topic] = data
    yield from ((STATIC_TOPIC, data) for data in fixed)
    yield from last.items()
