"""Which coordinate frame lay where in which other, and when: a bounded history of tf that reaches back to evidence."""

from __future__ import annotations

import bisect
import threading
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from salmonn_node.stream.observations import SECOND_NS, Pose
from salmonn_node.stream.pose_track import slerp
from salmonn_node.stream.transforms import chained, inverted

TAKEN = "taken"
NEW_START_NS = 5 * SECOND_NS  # a transform stamped so far before the newest: time runs anew, as when a bag is restarted
VALUES = 7  # x y z, quaternion x y z w


@dataclass
class _Track:
    """Poses of one frame in its parent, by stamp; 64 bytes each."""

    parent: str
    stamps: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def pose(self, index: int, frame: str) -> Pose:
        row = np.array(self.values[index * VALUES : (index + 1) * VALUES])
        return Pose(self.stamps[index], self.parent, row[:3], row[3:], child_frame_id=frame)


class FrameTree:
    """Transforms by time, as poses of a frame in its parent; any thread may call.

    tf's own buffer forgets after ten seconds, evidence is older: this one keeps an hour of ten transforms a second.
    Between two transforms at most `max_gap_s` apart it interpolates (linear, slerp); at an end the last one holds for
    `max_age_s`; nothing is extrapolated.

    Args:
        max_gap_s, max_age_s: seconds, positive.
        period_s: transforms of a frame that follow the last one sooner are passed over.
        capacity: transforms kept of each frame, at least 2; the oldest go first.
        max_frames: frames that move, at least 1; more are refused.
    """

    def __init__(
        self,
        *,
        max_gap_s: float = 2.0,
        max_age_s: float = 1.0,
        period_s: float = 0.1,
        capacity: int = 36_000,
        max_frames: int = 64,
    ) -> None:
        if max_gap_s <= 0 or max_age_s <= 0 or period_s < 0 or capacity < 2 or max_frames < 1:
            raise ValueError(f"out of range: {max_gap_s=}, {max_age_s=}, {period_s=}, {capacity=}, {max_frames=}")
        self._max_gap_ns, self._max_age_ns = round(max_gap_s * SECOND_NS), round(max_age_s * SECOND_NS)
        self._period_ns, self._capacity, self._max_frames = round(period_s * SECOND_NS), capacity, max_frames
        self._static: dict[str, Pose] = {}
        self._moving: dict[str, _Track] = {}
        self._lock = threading.Lock()

    @property
    def frames(self) -> tuple[str, ...]:
        """All frames that were named, sorted."""
        with self._lock:
            parents = {pose.frame_id for pose in self._static.values()} | {t.parent for t in self._moving.values()}
            return tuple(sorted(parents | set(self._static) | set(self._moving)))

    def add(self, transform: Pose, *, static: bool = False) -> str:
        """Keep where a frame (`child_frame_id`) lies in its parent (`frame_id`); returns "taken" or why it is not kept.

        Static ones hold at all times; a frame with another parent than before starts anew.
        """
        frame, parent = transform.child_frame_id, transform.frame_id
        norm = float(np.linalg.norm(transform.orientation))
        if not frame or not parent or frame == parent:
            return "transform_no_frame"
        if not np.isfinite(transform.position).all() or not np.isfinite(norm) or abs(norm - 1.0) > 0.05:
            return "transform_not_finite"
        with self._lock:
            if static:
                if frame not in self._static and len(self._static) >= 16 * self._max_frames:
                    return "transform_too_many_frames"
                self._moving.pop(frame, None)
                self._static[frame] = transform
                return TAKEN
            return self._follow(frame, parent, transform)

    def _follow(self, frame: str, parent: str, transform: Pose) -> str:
        if transform.stamp_ns <= 0:
            return "transform_stamp_zero"
        track = self._moving.get(frame)
        if track is None and len(self._moving) >= self._max_frames:
            return "transform_too_many_frames"
        self._static.pop(frame, None)
        if track is None or track.parent != parent or transform.stamp_ns < track.stamps[-1] - NEW_START_NS:
            track = self._moving[frame] = _Track(parent)
        if track.stamps and transform.stamp_ns < track.stamps[-1] + self._period_ns:
            return "transform_passed_over"
        track.stamps.append(transform.stamp_ns)
        track.values.extend((*transform.position.tolist(), *transform.orientation.tolist()))
        if len(track.stamps) > self._capacity + self._capacity // 8:
            surplus = len(track.stamps) - self._capacity
            del track.stamps[:surplus], track.values[: surplus * VALUES]
        return TAKEN

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """All transforms: stamps (n,) int64 and values (n, 7) float64 of each moving frame, and the rest as JSON."""
        with self._lock:
            arrays: dict[str, np.ndarray] = {
                f"{frame}.stamps": np.array(t.stamps, np.int64) for frame, t in self._moving.items()
            }
            arrays |= {
                f"{frame}.values": np.array(t.values, np.float64).reshape(-1, VALUES)
                for frame, t in self._moving.items()
            }
            static = {f: [p.frame_id, *p.position.tolist(), *p.orientation.tolist()] for f, p in self._static.items()}
            return arrays, {"static": static, "parents": {f: t.parent for f, t in self._moving.items()}}

    def restore(self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        """Take over what `to_arrays` gave."""
        with self._lock:
            self._static = {
                frame: Pose(0, parent, np.array(numbers[:3]), np.array(numbers[3:]), child_frame_id=frame)
                for frame, (parent, *numbers) in values["static"].items()
            }
            self._moving = {
                frame: _Track(
                    parent,
                    array("q", arrays[f"{frame}.stamps"].tolist()),
                    array("d", arrays[f"{frame}.values"].ravel().tolist()),
                )
                for frame, parent in values["parents"].items()
            }

    def lookup(self, target: str, source: str, stamp_ns: int) -> Pose | None:
        """The pose of frame `source` in frame `target` at a time; None when the two are not connected then."""
        identity = Pose(stamp_ns, source, np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]), child_frame_id=source)
        if source == target:
            return identity
        with self._lock:
            up = self._ancestors(source, stamp_ns)
            if target in up:
                return up[target]
            for frame, place in self._ancestors(target, stamp_ns).items():
                if frame in up:
                    return chained(inverted(place), up[frame])
        return None

    def between(self, target: str, source: str) -> tuple[set[str], int] | None:
        """The moving frames on the way from `source` to `target`, and the stamp up to which all of them are known.

        None when the two are not connected, or by static transforms alone.
        """
        with self._lock:
            up, down = self._way_up(source), self._way_up(target)
            common = next((frame for frame in up if frame in down), None)
            if common is None:
                return None
            way = {*up[: up.index(common)], *down[: down.index(common)]}
            moving = {frame for frame in way if frame in self._moving}
            if not moving:
                return None
            return moving, min(self._moving[frame].stamps[-1] for frame in moving)

    def transform(self, pose: Pose, target: str) -> Pose | None:
        """A pose in frame `target` at the pose's own time, its covariance turned; None when there is no way there."""
        place = self.lookup(target, pose.frame_id, pose.stamp_ns)
        return None if place is None else chained(place, pose)

    def _way_up(self, frame: str) -> list[str]:
        """The frame and all above it, the nearest first."""
        way = [frame]
        while True:
            static, track = self._static.get(way[-1]), self._moving.get(way[-1])
            above = static.frame_id if static is not None else track.parent if track is not None else ""
            if not above or above in way:
                return way
            way.append(above)

    def _ancestors(self, frame: str, stamp_ns: int) -> dict[str, Pose]:
        """The pose of `frame` in each frame above it, the nearest first."""
        found: dict[str, Pose] = {}
        place: Pose | None = None
        current, start = frame, frame
        while (step := self._step(current, stamp_ns)) is not None and step.frame_id not in (start, *found):
            place = step if place is None else chained(step, place)
            current = step.frame_id
            found[current] = place
        return found

    def _step(self, frame: str, stamp_ns: int) -> Pose | None:
        """The pose of `frame` in its parent."""
        if (static := self._static.get(frame)) is not None:
            return Pose(stamp_ns, static.frame_id, static.position, static.orientation, child_frame_id=frame)
        track = self._moving.get(frame)
        if track is None:
            return None
        after = bisect.bisect_left(track.stamps, stamp_ns)
        later = track.pose(after, frame) if after < len(track.stamps) else None
        earlier = track.pose(after - 1, frame) if after > 0 else None
        if later is not None and earlier is not None and later.stamp_ns - earlier.stamp_ns <= self._max_gap_ns:
            share = (stamp_ns - earlier.stamp_ns) / (later.stamp_ns - earlier.stamp_ns)
            position = earlier.position + share * (later.position - earlier.position)
            orientation = slerp(earlier.orientation, later.orientation, share)
        else:
            near = [p for p in (earlier, later) if p is not None and abs(p.stamp_ns - stamp_ns) <= self._max_age_ns]
            if not near:
                return None
            nearest = min(near, key=lambda p: abs(p.stamp_ns - stamp_ns))
            position, orientation = nearest.position, nearest.orientation
        return Pose(stamp_ns, track.parent, position, orientation, child_frame_id=frame)
