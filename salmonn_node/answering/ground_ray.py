"""Position of an object: intersects the ray through its foot in the picture with the ground, with a covariance."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from salmonn_node.stream.answers import Region
from salmonn_node.stream.camera_model import CameraModel
from salmonn_node.stream.observations import Pose
from salmonn_node.stream.transforms import chained, from_rpy, rotation

Floats = npt.NDArray[np.float64]

MAX_RANGE_M = 10.0
BODY_M = 0.1  # the visible foot is on the near side of the object; its middle is about this far behind
UNDISTORT_PX = 1.0  # a pixel has no ray if undistorting and distorting it again moves it further than this
ANY_TURN_RAD2 = math.pi**2 / 3  # variance of an unknown angle
UNIFORM = 1 / math.sqrt(12)  # standard deviation of a uniform distribution of width 1
DISTORTIONS = ("plumb_bob", "rational_polynomial", "equidistant")


class NoGroundPointError(ValueError):
    """No ground point could be computed. The message is a short reason, used as the name of a counter."""


def ground_point(
    region: Region,
    camera: CameraModel,
    mount: Pose,
    robot: Pose,
    *,
    ground_z_m: float = 0.0,
    max_range_m: float = MAX_RANGE_M,
) -> Pose:
    """Compute an object's pose on the ground, in the frame of the robot's pose. Its orientation is unknown.

    The foot of the object is the middle of the region's lowest row of cells, because the true end may be anywhere in
    them. Its uncertainty is uniform over the width of the region and the height of a cell. The covariance of the
    robot's pose is added to first order, with central differences, and so is BODY_M. A robot pose without covariance
    counts as exact.

    Args:
        region: the object's region in the picture.
        camera: intrinsics of the camera; they may refer to another picture size than the region's.
        mount: pose of the camera's optical frame in the frame whose pose `robot` is.
        robot: the robot's pose when the picture was taken, z up.
        ground_z_m: height of the plane that the object stands on, in the frame of `robot`, metres.
        max_range_m: the largest distance from the camera along the ground, metres.

    Returns:
        Pose with the stamp, frame and map of `robot` and a (6, 6) covariance.

    Raises:
        NoGroundPointError: "above_horizon", "out_of_range", "outside_the_lens" or "unknown_distortion".
    """
    across, down = camera.width / region.picture_width, camera.height / region.picture_height
    cell = min(region.cell_px or region.height, region.height)
    pixel = np.array([(region.x + region.width / 2) * across, (region.y + region.height - cell / 2) * down])
    sigma = np.array([region.width * across, cell * down]) * UNIFORM
    point = _meet(pixel, np.zeros(6), camera, mount, robot, ground_z_m, max_range_m)
    jacobian = np.zeros((2, 8))
    steps = [*np.maximum(sigma, 0.5), *([1e-3] * 3), *([1e-4] * 3)]
    for i, step in enumerate(steps):
        ends = []
        for sign in (1.0, -1.0):
            change = np.zeros(8)
            change[i] = sign * step
            # A step beyond the range still has a valid derivative, so do not limit it. A step above the horizon fails.
            ends.append(_meet(pixel + change[:2], change[2:], camera, mount, robot, ground_z_m, math.inf))
        jacobian[:, i] = (ends[0] - ends[1])[:2] / (2 * step)
    spread = np.zeros((8, 8))
    spread[:2, :2] = np.diag(sigma**2)
    if robot.covariance is not None:
        spread[2:, 2:] = robot.covariance
    covariance = np.zeros((6, 6))
    covariance[:2, :2] = jacobian @ spread @ jacobian.T + np.eye(2) * BODY_M**2
    covariance[3:, 3:] = np.eye(3) * ANY_TURN_RAD2
    child = "object"
    return Pose(robot.stamp_ns, robot.frame_id, point, np.array([0.0, 0, 0, 1]), covariance, robot.map_id, child)


def _meet(
    pixel: Floats,
    change: Floats,
    camera: CameraModel,
    mount: Pose,
    robot: Pose,
    ground_z_m: float,
    max_range_m: float,
) -> Floats:
    """(3,) point where a pixel's ray meets the ground, with the robot moved by `change` (x y z roll pitch yaw)."""
    eye = chained(robot, mount)
    turn = rotation(from_rpy(*change[3:]))
    # The covariance refers to the robot's position, so a rotation moves the camera around that position.
    origin = robot.position + change[:3] + turn @ (eye.position - robot.position)
    ray = turn @ rotation(eye.orientation) @ direction(camera, pixel)
    drop = ground_z_m - origin[2]
    if not (ray[2] < -1e-3 and drop < 0):
        raise NoGroundPointError("above_horizon")
    point = origin + ray * (drop / ray[2])
    if math.hypot(*(point - origin)[:2]) > max_range_m:
        raise NoGroundPointError("out_of_range")
    point[2] = ground_z_m
    return point


def direction(camera: CameraModel, pixel: Floats) -> Floats:
    """The ray of a pixel (2,) u v: a (3,) unit vector in the optical frame (z forward, x right, y down).

    Raises:
        NoGroundPointError: "unknown_distortion", or "outside_the_lens" if the distortion cannot be inverted.
    """
    matrix, bent = camera.matrix, camera.coefficients
    if not bent.any():
        x, y = (pixel - matrix[:2, 2]) / matrix[[0, 1], [0, 1]]
    else:
        if camera.distortion_model not in DISTORTIONS:
            raise NoGroundPointError("unknown_distortion")
        lens = cv2.fisheye if camera.distortion_model == "equidistant" else cv2
        try:
            x, y = lens.undistortPoints(pixel.reshape(1, 1, 2), matrix, bent).reshape(2)
            ahead = np.array([[[x, y, 1.0]]])
            back = lens.projectPoints(ahead, np.zeros(3), np.zeros(3), matrix, bent)[0].reshape(2)
        except cv2.error:
            raise NoGroundPointError("unknown_distortion") from None
        if not np.isfinite(back).all() or float(np.abs(back - pixel).max()) > UNDISTORT_PX:
            raise NoGroundPointError("outside_the_lens")
    ray = np.array([x, y, 1.0])
    return ray / np.linalg.norm(ray)
