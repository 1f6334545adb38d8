"""CameraInfo and TFMessage as the stream's own types: camera models, and transforms as poses."""

from __future__ import annotations

from typing import Any

import numpy as np

from salmonn_node.messages.base import MessageError, stamp_ns
from salmonn_node.stream.camera_model import CameraModel
from salmonn_node.stream.observations import Pose

MAX_TRANSFORMS = 1_000  # of one message; a robot has a hundred


def camera_model_from_message(msg: Any) -> CameraModel:
    """Camera model of a sensor_msgs/CameraInfo; K is brought to the picture's own pixels (binning, region of interest).

    Raises:
        MessageError: "camera_info_bad": K is zero (not calibrated), or numbers that make no camera.
    """
    matrix = np.array(msg.k, np.float64).reshape(3, 3)
    width, height = int(msg.width), int(msg.height)
    roi = msg.roi
    if roi.width and roi.height:
        matrix[0, 2] -= roi.x_offset
        matrix[1, 2] -= roi.y_offset
        width, height = int(roi.width), int(roi.height)
    across, down = max(1, int(msg.binning_x)), max(1, int(msg.binning_y))
    matrix[0] /= across
    matrix[1] /= down
    coefficients = np.array(msg.d, np.float64).reshape(-1)
    try:
        return CameraModel(
            width // across, height // down, matrix, str(msg.distortion_model), coefficients, str(msg.header.frame_id)
        )
    except ValueError as error:
        raise MessageError("camera_info_bad", f"camera_info: {error}") from None


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
                _name(item.header.frame_id),
                np.array([place.x, place.y, place.z], np.float64),
                np.array([turn.x, turn.y, turn.z, turn.w], np.float64),
                child_frame_id=_name(item.child_frame_id),
            )
        )
    return found


def _name(frame: Any) -> str:
    """tf1 wrote a leading slash, and some drivers still do."""
    return str(frame).lstrip("/")
