"""Pose messages to Pose and back: Odometry, PoseStamped, PoseWithCovarianceStamped."""

from __future__ import annotations

from typing import Any

import numpy as np

from salmonn_node.messages.base import (
    MessageError,
    MessageTypes,
    field_names,
    frame_name,
    frame_of,
    header_message,
    header_stamp_ns,
)
from salmonn_node.stream.observations import Pose

QUATERNION_SLACK = 0.05  # odometry in single precision and hand-written launch files are a little off


def pose_from_message(msg: Any, map_id: str = "", base_frame: str = "base_link") -> Pose:
    """Pose of an Odometry, PoseStamped or PoseWithCovarianceStamped; `map_id` names the map of its frame.

    `base_frame` is whose pose it is where the message does not say so.

    A covariance that is all zero (ROS: unknown), not finite or negative on its diagonal is None.
    Raises MessageError: "stamp_zero", "pose_no_frame", "pose_not_finite", "pose_bad_quaternion".
    """
    stamp = header_stamp_ns(msg)
    frame_id = frame_of(msg)
    if not frame_id:
        raise MessageError("pose_no_frame", "header.frame_id is empty: a pose without a frame means nothing")
    with_covariance = "pose" in field_names(msg.pose)
    pose = msg.pose.pose if with_covariance else msg.pose
    position = np.array([pose.position.x, pose.position.y, pose.position.z], np.float64)
    turn = pose.orientation
    orientation = np.array([turn.x, turn.y, turn.z, turn.w], np.float64)
    if not (np.isfinite(position).all() and np.isfinite(orientation).all()):
        raise MessageError("pose_not_finite", f"position {position.tolist()}, orientation {orientation.tolist()}")
    norm = float(np.linalg.norm(orientation))
    if abs(norm - 1.0) > QUATERNION_SLACK:
        raise MessageError("pose_bad_quaternion", f"orientation {orientation.tolist()} has length {norm:.3f}, not 1")
    covariance = None
    if with_covariance:
        stated = np.array(msg.pose.covariance, np.float64).reshape(6, 6)
        if np.isfinite(stated).all() and stated.any() and (np.diagonal(stated) >= 0).all():
            covariance = stated
    child = frame_name(getattr(msg, "child_frame_id", "")) or base_frame
    return Pose(stamp, frame_id, position, orientation / norm, covariance, map_id, child)


def pose_to_message(types: MessageTypes, pose: Pose | None) -> Any:
    """geometry_msgs/PoseWithCovarianceStamped; all zero with an empty frame when `pose` is None."""
    x, y, z = (float(v) for v in pose.position) if pose is not None else (0.0, 0.0, 0.0)
    qx, qy, qz, qw = (float(v) for v in pose.orientation) if pose is not None else (0.0, 0.0, 0.0, 0.0)
    covariance = np.zeros(36, np.float64)
    if pose is not None and pose.covariance is not None:
        covariance = np.asarray(pose.covariance, np.float64).reshape(36)
    return types.new(
        "geometry_msgs/msg/PoseWithCovarianceStamped",
        header=header_message(types, pose.stamp_ns if pose else 0, pose.frame_id if pose else ""),
        pose=types.new(
            "geometry_msgs/msg/PoseWithCovariance",
            pose=types.new(
                "geometry_msgs/msg/Pose",
                position=types.new("geometry_msgs/msg/Point", x=x, y=y, z=z),
                orientation=types.new("geometry_msgs/msg/Quaternion", x=qx, y=qy, z=qz, w=qw),
            ),
            covariance=covariance,
        ),
    )
