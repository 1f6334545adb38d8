"""Grounding: knows tf frames, cameras and their mounts, and computes the positions of objects in evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from salmonn_node.answering.ground_ray import MAX_RANGE_M, NoGroundPointError, ground_point
from salmonn_node.stream.answers import Evidence
from salmonn_node.stream.camera_history import CameraHistory
from salmonn_node.stream.camera_model import CameraModel
from salmonn_node.stream.frame_tree import FrameTree
from salmonn_node.stream.observations import Pose
from salmonn_node.stream.transforms import mounted


class Grounding:
    """Computes object positions. Fill `cameras` and `frames` from CameraInfo and tf, at any time and from any thread.

    Args:
        mounts: by camera, x y z roll pitch yaw (m, rad) of its optical frame in `base_frame`. A mount overrides tf.
        base_frame: the robot's frame, for mounts and for poses without a child frame.
        ground_z_m: height of the plane that objects stand on, in the frame of the poses, metres.
        max_range_m: objects further from the camera get no position, metres.

    Attributes:
        cameras: intrinsics by camera name and time.
        frames: tf transforms.
        counts: how often an object got a position ("object"), or why it did not.

    Raises:
        ValueError: a mount does not have six finite numbers, or the range is not positive.
    """

    def __init__(
        self,
        mounts: Mapping[str, tuple[float, ...]] | None = None,
        *,
        base_frame: str = "base_link",
        ground_z_m: float = 0.0,
        max_range_m: float = MAX_RANGE_M,
    ) -> None:
        if not max_range_m > 0:
            raise ValueError(f"max_range_m must be positive, got {max_range_m}")
        self.cameras = CameraHistory()
        self.frames = FrameTree()
        self.counts: Counter[str] = Counter()
        self._mounts = {name: mounted(base_frame, name, tuple(m)) for name, m in (mounts or {}).items()}
        self._base_frame, self._ground_z_m, self._max_range_m = base_frame, ground_z_m, max_range_m

    def transform(self, pose: Pose, target: str) -> Pose | None:
        """Transform a pose to another frame at the pose's stamp; None when tf did not connect the frames then."""
        return self.frames.transform(pose, target)

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """State of cameras and frames as arrays and JSON values, for `restore`. Mounts are not included."""
        arrays, values = self.frames.to_arrays()
        return arrays, {**values, "cameras": self.cameras.to_values()}

    def restore(self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        """Restore the state from `to_arrays`."""
        self.frames.restore(arrays, values)
        self.cameras.restore(values["cameras"])

    def object_pose(self, evidence: Evidence) -> Pose | None:
        """Position of the object in the evidence's picture; None when it cannot be computed, and `counts` says why."""
        try:
            found = self._object_pose(evidence)
        except NoGroundPointError as error:
            self.counts[str(error)] += 1
            return None
        self.counts["object"] += 1
        return found

    def _object_pose(self, evidence: Evidence) -> Pose:
        if evidence.region is None:
            raise NoGroundPointError("no_region")
        if evidence.pose is None:
            raise NoGroundPointError("no_pose")
        camera = self.cameras.at(evidence.source, evidence.pose.stamp_ns)
        if camera is None:
            raise NoGroundPointError("no_camera_info")
        mount = self._mount(evidence, camera)
        if mount is None:
            raise NoGroundPointError("no_mount")
        plane = {"ground_z_m": self._ground_z_m, "max_range_m": self._max_range_m}
        point = ground_point(evidence.region, camera, mount, evidence.pose, **plane)
        later = evidence.later_pose
        if later is None or (later.frame_id, later.map_id) != (point.frame_id, point.map_id):
            return point
        # The tokens come from two frames, and it is unknown which of them shows the object in the region.
        try:
            other = ground_point(evidence.region, camera, mount, later, **plane)
        except NoGroundPointError:
            raise NoGroundPointError("robot_moved") from None
        apart = (other.position - point.position)[:2]
        assert point.covariance is not None
        covariance = point.covariance.copy()
        covariance[:2, :2] += np.outer(apart, apart) / 2
        return replace(point, covariance=covariance)

    def _mount(self, evidence: Evidence, camera: CameraModel) -> Pose | None:
        """Pose of the camera's optical frame in the robot frame of the evidence's pose; None when unknown."""
        assert evidence.pose is not None
        base = evidence.pose.child_frame_id or self._base_frame
        given = self._mounts.get(evidence.source)
        if given is not None:
            return Pose(0, base, given.position, given.orientation, child_frame_id=given.child_frame_id)
        optical = evidence.frame_id or camera.frame_id
        for frame in dict.fromkeys((base, self._base_frame)):
            mount = self.frames.lookup(frame, optical, evidence.pose.stamp_ns)
            if mount is not None:
                return Pose(mount.stamp_ns, base, mount.position, mount.orientation, child_frame_id=optical)
        return None
