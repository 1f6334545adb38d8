"""CameraInfo and TFMessage as the stream's own types: camera models, and transforms as poses."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from salmonn_node.messages.base import MessageError, frame_name, frame_of, stamp_ns
from salmonn_node.stream.camera_model import CameraModel
from salmonn_node.stream.observations import Pose

MAX_TRANSFORMS = 1_000  # of one message; a robot has a hundred


def camera_model_from_message(msg: Any, *, rectified: bool = False) -> CameraModel:
    """Camera model of a sensor_msgs/CameraInfo of ROS 2 or ROS 1, in the picture's own pixels (binning, region).

    Args:
        msg: the message.
        rectified: the pictures are rectified: then P forms them, without distortion; else K and D do.

    Raises:
        MessageError: "camera_info_bad": the matrix is zero (not calibrated), or numbers that make no camera.
    """
    matrix = _numbers(msg, "p").reshape(3, 4)[:, :3] if rectified else _numbers(msg, "k").reshape(3, 3)
    if rectified and not matrix.any():  # drivers that never rectify leave P empty
        return camera_model_from_message(msg)
    coefficients = np.zeros(0) if rectified else _numbers(msg, "d").reshape(-1)
    width, height = int(msg.width), int(msg.height)
    roi = msg.roi
    if roi.width and roi.height:
        matrix[0, 2] -= roi.x_offset
        matrix[1, 2] -= roi.y_offset
        width, height = int(roi.width), int(roi.height)
    across, down = max(1, int(msg.binning_x)), max(1, int(msg.binning_y))
    matrix[0] /= across
    matrix[1] /= down
    try:
        return CameraModel(
            width // across, height // down, matrix, str(msg.distortion_model), coefficients, frame_of(msg)
        )
    except ValueError as error:
        raise MessageError("camera_info_bad", f"camera_info: {error}") from None


def shows_rectified(topic: str) -> bool:
    """Whether a camera topic's name says that its pictures are rectified: `/front/image_rect_color/compressed`."""
    return any({"rect", "rectified"} & set(part.split("_")) for part in topic.split("/"))


def _numbers(msg: Any, name: str) -> npt.NDArray[np.float64]:
    """A copy of an array of CameraInfo, which ROS 1 names with a capital letter."""
    return np.array(getattr(msg, name if hasattr(msg, name) else name.upper()), np.float64)


def transforms_from_message(msg: Any) -> list[Pose]:
    """Transforms of a tf2_msgs/TFMessage, each as the pose of its child frame; what is wrong in one, the tree refuses.

    Raises:
        MessageError: "transform_too_many": more than any robot has.
    """
    if len(msg.transforms) > MAX_TRANSFORMS:
        raise MessageError("transform_too_many", f"{len(msg.transforms)} transforms, at most {MAX_TRANSFORMS} are read")
    found = []
    for item in msg.transforms:
        place, turn = item.transform.translation, item.transform.rotation
        found.append(
            Pose(
                stamp_ns(item.header.stamp),
                frame_name(item.header.frame_id),
                np.array([place.x, place.y, place.z], np.float64),
                np.array([turn.x, turn.y, turn.z, turn.w], np.float64),
                child_frame_id=frame_name(item.child_frame_id),
            )
        )
    return found
