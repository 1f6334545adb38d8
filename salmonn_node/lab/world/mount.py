"""Camera mount and intrinsics of the synthetic robot, as in its CameraInfo and tf."""

from __future__ import annotations

import math

import numpy as np

from salmonn_node.lab.world.camera import camera_matrix
from salmonn_node.lab.world.layout import STAND_HEIGHT_M
from salmonn_node.lab.world.scene import CAMERA_HEIGHT_M, CAMERA_PITCH_RAD
from salmonn_node.stream.camera_model import CameraModel

BASE_FRAME = "base_link"
# x y z roll pitch yaw of the optical frame (z forward, x right, y down) in the base frame. It looks slightly down.
CAMERA_MOUNT = (0.0, 0.0, CAMERA_HEIGHT_M, -math.pi / 2 - float(CAMERA_PITCH_RAD), 0.0, -math.pi / 2)
# Height of the stands: the plane of the feet of all things.
GROUND_Z_M = STAND_HEIGHT_M


def camera_model(width: int, height: int, frame_id: str = "") -> CameraModel:
    """Return the intrinsics for pictures of that size (16:9), without distortion."""
    return CameraModel(width, height, camera_matrix(width, height), "plumb_bob", np.zeros(5), frame_id)
