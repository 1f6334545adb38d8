"""Where the robot was when: poses by time, interpolated at a stamp, never across a gap or between maps."""

from __future__ import annotations

import bisect
import math
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from salmonn_node.stream.observations import SECOND_NS, Interval, Pose


class PoseTrack:
    """A bounded, ordered track of poses.

    Between two poses of the same frame and map at most `max_gap_s` apart, position is interpolated linearly and
    orientation by slerp; the covariance is that of the nearer pose. Before the first and after the last one a pose
    is given only within `max_age_s`, and then it is that pose itself: nothing is extrapolated.
    """

    def __init__(self, *, max_gap_s: float = 1.0, max_age_s: float = 0.5, capacity: int = 20_000) -> None:
        """Keep at most `capacity` poses, the oldest go first. Raises ValueError when an argument is not positive."""
        if max_gap_s <= 0 or max_age_s <= 0 or capacity <= 0:
            raise ValueError(f"arguments must be positive: {max_gap_s=}, {max_age_s=}, {capacity=}")
        self._max_gap_ns = round(max_gap_s * SECOND_NS)
        self._max_age_ns = round(max_age_s * SECOND_NS)
        self._poses: deque[Pose] = deque(maxlen=capacity)

    def __len__(self) -> int:
        return len(self._poses)

    @property
    def newest(self) -> Pose | None:
        """The last pose, None before the first."""
        return self._poses[-1] if self._poses else None

    def add(self, pose: Pose) -> str:
        """Append a pose; returns "taken" or the reason why it was refused, which leaves the track unchanged."""
        if pose.stamp_ns <= 0:
            return "stamp_zero"
        if self._poses and pose.stamp_ns <= self._poses[-1].stamp_ns:
            return "stamp_out_of_order"
        norm = math.sqrt(float(np.sum(np.square(pose.orientation))))
        if not np.isfinite(pose.position).all() or not math.isfinite(norm) or abs(norm - 1.0) > 0.05:
            return "pose_not_finite"
        self._poses.append(pose)
        return "taken"

    def clear(self) -> None:
        """Forget all poses."""
        self._poses.clear()

    def forget(self, interval: Interval) -> None:
        """Remove the poses of an interval, its ends included."""
        kept = [pose for pose in self._poses if not interval.start_ns <= pose.stamp_ns <= interval.end_ns]
        self._poses.clear()
        self._poses.extend(kept)

    def to_state(self, length_s: float) -> list[Any]:
        """JSON values of the poses of the last `length_s` seconds, from which `restore` continues."""
        start_ns = self._poses[-1].stamp_ns - round(length_s * SECOND_NS) if self._poses else 0
        return [pose.to_state() for pose in self._poses if pose.stamp_ns >= start_ns]

    def restore(self, state: list[Any]) -> None:
        """Take over what `to_state` gave; raises TypeError or ValueError when a pose is malformed."""
        self._poses.clear()
        self._poses.extend(Pose.from_state(values) for values in state)

    def settled(self, stamp_ns: int) -> bool:
        """Whether poses to come can no longer change what `at(stamp_ns)` gives."""
        return bool(self._poses) and self._poses[-1].stamp_ns >= stamp_ns

    def at(self, stamp_ns: int) -> Pose | None:
        """The pose at `stamp_ns`, stamped so; None where the track does not know it."""
        after = bisect.bisect_left(self._poses, stamp_ns, key=lambda pose: pose.stamp_ns)
        later = self._poses[after] if after < len(self._poses) else None
        earlier = self._poses[after - 1] if after > 0 else None
        if later is not None and later.stamp_ns == stamp_ns:
            return later
        if earlier is not None and later is not None:
            same = (earlier.frame_id, earlier.map_id) == (later.frame_id, later.map_id)
            if same and later.stamp_ns - earlier.stamp_ns <= self._max_gap_ns:
                return _between(earlier, later, stamp_ns)
        near = [pose for pose in (earlier, later) if pose and abs(pose.stamp_ns - stamp_ns) <= self._max_age_ns]
        if not near:
            return None
        return _stamped(min(near, key=lambda pose: abs(pose.stamp_ns - stamp_ns)), stamp_ns)


def _stamped(pose: Pose, stamp_ns: int) -> Pose:
    return Pose(
        stamp_ns, pose.frame_id, pose.position, pose.orientation, pose.covariance, pose.map_id, pose.child_frame_id
    )


def _between(earlier: Pose, later: Pose, stamp_ns: int) -> Pose:
    share = (stamp_ns - earlier.stamp_ns) / (later.stamp_ns - earlier.stamp_ns)
    nearer = earlier if share < 0.5 else later
    position = earlier.position + share * (later.position - earlier.position)
    orientation = slerp(earlier.orientation, later.orientation, share)
    return Pose(
        stamp_ns, nearer.frame_id, position, orientation, nearer.covariance, nearer.map_id, nearer.child_frame_id
    )


def slerp(start: npt.NDArray[np.float64], end: npt.NDArray[np.float64], share: float) -> npt.NDArray[np.float64]:
    """Spherical interpolation between unit quaternions (4,) x y z w, the short way (Shoemake 1985)."""
    cosine = float(np.dot(start, end))
    if cosine < 0:
        end, cosine = -end, -cosine
    if cosine > 0.9995:
        mixed = start + share * (end - start)
    else:
        angle = math.acos(min(cosine, 1.0))
        mixed = (math.sin((1 - share) * angle) * start + math.sin(share * angle) * end) / math.sin(angle)
    return mixed / np.linalg.norm(mixed)
