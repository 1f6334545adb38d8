"""The robot's poses as tf tells them, for robots that publish no pose topic."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import replace

from salmonn_node.stream.frame_tree import NEW_START_NS, FrameTree
from salmonn_node.stream.observations import SECOND_NS, Pose

PERIOD_NS = SECOND_NS // 10
MAX_WAITING = 1000  # transforms that wait for a slower one of the chain, such as that from map to odom
_LAST = "\U0010ffff"  # after every name of a frame


class TfPoses:
    """Makes poses of one frame in another from transforms, as they come.

    A pose is made at the stamp of a transform between the two frames, as soon as every transform on the way is known
    up to that stamp. So each pose lies between transforms and does not depend on which of them came first. At most ten
    poses a second are made.

    Args:
        frames: the tree; each transform is added to it before `poses` is told of it.
        fixed_frame: the frame of the poses, such as "map" or "odom".
        base_frame: the frame whose pose it is, such as "base_link".
        map_id: name of the map that the poses refer to.
    """

    def __init__(self, frames: FrameTree, fixed_frame: str, base_frame: str, map_id: str = "") -> None:
        self._frames = frames
        self._fixed, self._base, self._map_id = fixed_frame, base_frame, map_id
        self._waiting: list[tuple[int, str]] = []  # stamp and child frame of transforms
        self._last_ns = 0

    def poses(self, transforms: Iterable[Pose]) -> list[Pose]:
        """Poses that became known with these transforms, in order of their stamps."""
        for transform in transforms:
            if transform.stamp_ns < self._last_ns - NEW_START_NS:  # time runs anew
                self._waiting.clear()
                self._last_ns = 0
            if transform.stamp_ns > self._last_ns:
                bisect.insort(self._waiting, (transform.stamp_ns, transform.child_frame_id))
        del self._waiting[:-MAX_WAITING]
        between = self._frames.between(self._fixed, self._base)
        if between is None:
            return []
        moving, known_ns = between
        made = []
        known = bisect.bisect_right(self._waiting, (known_ns, _LAST))
        for stamp_ns, frame in self._waiting[:known]:
            if frame not in moving or stamp_ns < self._last_ns + PERIOD_NS:
                continue
            pose = self._frames.lookup(self._fixed, self._base, stamp_ns)
            if pose is not None:
                made.append(replace(pose, map_id=self._map_id))
                self._last_ns = stamp_ns
        del self._waiting[:known]
        return made
