"""Poses put together: turned, chained, inverted, with their covariances (REP-103: metres, radians, fixed axes)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from salmonn_node.stream.observations import Pose

Floats = npt.NDArray[np.float64]


def rotation(quaternion: Floats) -> Floats:
    """(3, 3) rotation matrix of a quaternion (4,) x y z w, which need not be of unit length but is not zero."""
    x, y, z, w = (float(v) for v in quaternion / np.linalg.norm(quaternion))
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def times(outer: Floats, inner: Floats) -> Floats:
    """(4,) the quaternion x y z w of the turn `inner` followed by `outer` (Hamilton's product)."""
    a, b = outer[:3], inner[:3]
    vector = outer[3] * b + inner[3] * a + np.cross(a, b)
    return np.array([*vector, outer[3] * inner[3] - float(a @ b)])


def from_rpy(roll: float, pitch: float, yaw: float) -> Floats:
    """(4,) quaternion x y z w of roll, pitch and yaw about the fixed axes x, y and z, in this order (rad)."""
    (sr, cr), (sp, cp), (sy, cy) = ((math.sin(a / 2), math.cos(a / 2)) for a in (roll, pitch, yaw))
    return np.array(
        [
            sr * cp * cy - cr * sp * sy,
            cr * sp * cy + sr * cp * sy,
            cr * cp * sy - sr * sp * cy,
            cr * cp * cy + sr * sp * sy,
        ]
    )


def mounted(base_frame: str, frame: str, numbers: tuple[float, ...]) -> Pose:
    """Pose of `frame` in `base_frame` from x y z roll pitch yaw (m, rad), valid at all times (stamp 0).

    Raises:
        ValueError: not six finite numbers.
    """
    if len(numbers) != 6 or not all(math.isfinite(n) for n in numbers):
        raise ValueError(f"a mount needs 6 numbers (x y z roll pitch yaw), got {list(numbers)}")
    position = np.array(numbers[:3], np.float64)
    return Pose(0, base_frame, position, from_rpy(*numbers[3:]), child_frame_id=frame)


def chained(outer: Pose, inner: Pose) -> Pose:
    """`inner`, a pose in the frame whose pose `outer` is, as a pose in `outer`'s frame.

    Stamp, map, child frame and covariance are `inner`'s; the covariance is turned with it. `outer` counts as exact, as
    a transform of tf does.

    Raises:
        ValueError: `inner` is in another frame than `outer` places.
    """
    if inner.frame_id != outer.child_frame_id:
        raise ValueError(f"a pose in {inner.frame_id} cannot follow one of {outer.child_frame_id}")
    turn = rotation(outer.orientation)
    orientation = times(outer.orientation, inner.orientation)
    return replace(
        inner,
        frame_id=outer.frame_id,
        position=outer.position + turn @ inner.position,
        orientation=orientation / np.linalg.norm(orientation),
        covariance=None if inner.covariance is None else turned(inner.covariance, turn),
    )


def inverted(pose: Pose) -> Pose:
    """The pose of `frame_id` in `child_frame_id`; without covariance."""
    orientation = pose.orientation * np.array([-1.0, -1.0, -1.0, 1.0])
    position = -rotation(orientation) @ pose.position
    return Pose(pose.stamp_ns, pose.child_frame_id, position, orientation, None, pose.map_id, pose.frame_id)


def turned(covariance: Floats, turn: Floats) -> Floats:
    """(6, 6) covariance over x y z roll pitch yaw in axes that are turned by `turn` (3, 3)."""
    both = np.zeros((6, 6))
    both[:3, :3] = both[3:, 3:] = turn
    return both @ covariance @ both.T
