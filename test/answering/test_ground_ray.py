"""Objects are placed where they stand, with an uncertainty that fits; what cannot be placed says why."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salmonn_node.answering.ground_ray import NoGroundPointError, direction, ground_point
from salmonn_node.answering.grounding import Grounding
from salmonn_node.answering.image_region import region_of
from salmonn_node.lab.world.mount import BASE_FRAME, CAMERA_MOUNT, GROUND_Z_M, camera_model
from salmonn_node.lab.world.truth import WorldMoment
from salmonn_node.lab.world.truth_file import truth_from_json
from salmonn_node.live.demo_recording import TRUTH
from salmonn_node.stream.answers import Evidence, Region
from salmonn_node.stream.camera_model import CameraModel
from salmonn_node.stream.observations import Interval, Pose
from salmonn_node.stream.transforms import from_rpy, mounted, rotation

WIDTH, HEIGHT = 640, 360
CAMERA = camera_model(WIDTH, HEIGHT)
MOUNT = mounted(BASE_FRAME, "front_camera_optical_frame", CAMERA_MOUNT)
# What the bag's localiser says of its own noise.
COVARIANCE = np.diag([0.04**2, 0.04**2, 1e-6, 1e-6, 1e-6, 0.015**2])


def robot_at(moment: WorldMoment, covariance: np.ndarray | None = COVARIANCE) -> Pose:
    position = np.array([moment.pose.x, moment.pose.y, 0.0])
    return Pose(moment.stamp_ns, "map", position, from_rpy(0, 0, moment.pose.yaw), covariance, "home")


def cells_of(box: tuple[float, float, float, float], rows: int, columns: int) -> Region | None:
    """The region of tokens that the box touches, as a network would point at them that tells apart whole cells."""
    left, top, right, bottom = box
    weights = np.zeros((rows, columns))
    weights[int(top * rows) : math.ceil(bottom * rows), int(left * columns) : math.ceil(right * columns)] = 1.0
    return region_of(np.arange(rows * columns), weights.reshape(-1), (rows, columns), (WIDTH, HEIGHT))


def errors(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Errors (m) over all clear views of things in the demo's truth, and their squares in units of the covariance."""
    away, squares = [], []
    for moment in truth_from_json(TRUTH.read_text()).moments:
        for seen in moment.seen:
            region = cells_of(seen.box, rows, columns) if seen.clear else None
            if region is not None:
                found = ground_point(region, CAMERA, MOUNT, robot_at(moment), ground_z_m=GROUND_Z_M)
                gap = (found.position - np.array(seen.position))[:2]
                away.append(float(np.linalg.norm(gap)))
                squares.append(float(gap @ np.linalg.solve(found.covariance[:2, :2], gap)))
    return np.array(away), np.array(squares)


@pytest.mark.parametrize(("rows", "columns", "limit_m"), [(90, 160, 0.12), (11, 20, 0.25), (3, 5, 0.6)])
def test_the_demos_objects_are_where_the_truth_says(rows: int, columns: int, limit_m: float) -> None:
    away, squares = errors(rows, columns)
    print(f"{rows}x{columns}: {len(away)} views, median {np.median(away):.2f} m, p90 {np.quantile(away, 0.9):.2f} m")
    assert len(away) >= 20
    assert np.median(away) < limit_m
    assert 0.02 < np.mean(squares) < 4.0  # 2 for two dimensions and a perfect covariance


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-3, 3), st.floats(-3, 3), st.floats(-math.pi, math.pi), st.floats(1.2, 6.0), st.floats(-0.4, 0.4),
    st.booleans(),
)  # fmt: skip
def test_a_point_on_the_ground_is_found_again(x, y, yaw, away, aside, bent) -> None:
    model = replace(CAMERA, coefficients=np.array([-0.18, 0.04, 1e-3, -5e-4, 0.0])) if bent else CAMERA
    robot = Pose(5, "map", np.array([x, y, 0.0]), from_rpy(0.01, -0.02, yaw), None, "home")
    tilted = rotation(robot.orientation)
    eye = robot.position + tilted @ MOUNT.position
    ahead = yaw + aside
    point = np.array([eye[0] + away * math.cos(ahead), eye[1] + away * math.sin(ahead), 0.0])
    seen = (tilted @ rotation(MOUNT.orientation)).T @ (point - eye)
    pixel = cv2.projectPoints(seen.reshape(1, 1, 3), np.zeros(3), np.zeros(3), model.matrix, model.coefficients)[0]
    u, v = pixel.reshape(2)
    # A region of subpixel size in a picture that is 100 times as fine.
    region = Region(round(100 * u), round(100 * v), 1, 1, 100 * WIDTH, 100 * HEIGHT, 1.0)
    found = ground_point(region, model, MOUNT, robot)
    assert np.linalg.norm(found.position - point) < 0.02
    assert (found.stamp_ns, found.frame_id, found.map_id) == (5, "map", "home")


def test_covariance_is_that_of_sampled_poses_and_pixels() -> None:
    region = Region(300, 250, 40, 60, WIDTH, HEIGHT, 20.0)
    robot = Pose(1, "map", np.array([1.0, 2.0, 0.0]), from_rpy(0, 0, 0.7), COVARIANCE, "home")
    found = ground_point(region, CAMERA, MOUNT, robot)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(4000, 3)) * (0.04, 0.04, 0.015)
    points = []
    for dx, dy, dyaw in noise:
        dot = Region(
            int(3000 + 400 * rng.random()), int(10 * (310 - 20 * rng.random())), 1, 1, 10 * WIDTH, 10 * HEIGHT, 1.0
        )
        moved = replace(
            robot, position=robot.position + (dx, dy, 0), orientation=from_rpy(0, 0, 0.7 + dyaw), covariance=None
        )
        points.append(ground_point(dot, CAMERA, MOUNT, moved).position[:2])
    sampled = np.cov(np.array(points).T) + np.eye(2) * 0.01
    np.testing.assert_allclose(found.covariance[:2, :2], sampled, rtol=0.15, atol=2e-3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"region": Region(300, 60, 40, 40, WIDTH, HEIGHT)}, "above_horizon"),
        ({"region": Region(300, 140, 40, 41, WIDTH, HEIGHT, 1.0)}, "out_of_range"),
        ({"ground_z_m": 1.5}, "above_horizon"),
        ({"max_range_m": 0.5}, "out_of_range"),
        ({"camera": CameraModel(640, 360, CAMERA.matrix, "kannala", np.ones(4), "")}, "unknown_distortion"),
        ({"camera": CameraModel(640, 360, CAMERA.matrix, "plumb_bob", np.ones(3), "")}, "unknown_distortion"),
        ({"camera": CameraModel(640, 360, CAMERA.matrix, "plumb_bob", np.array([9.0, 9, 9, 9, 9]), "")}, "outside"),
    ],
)
def test_what_has_no_place_on_the_ground_says_why(change: dict, reason: str) -> None:
    given = {"region": Region(10, 250, 40, 40, WIDTH, HEIGHT, 1.0), "camera": CAMERA} | change
    robot = Pose(1, "map", np.zeros(3), from_rpy(0, 0, 0))
    with pytest.raises(NoGroundPointError, match=reason):
        ground_point(given.pop("region"), given.pop("camera"), MOUNT, robot, **given)


def test_a_robot_that_turns_between_the_two_frames_makes_it_uncertain() -> None:
    grounding = Grounding({"front": CAMERA_MOUNT})
    grounding.cameras.add("front", 0, CAMERA)
    first = Pose(1, "map", np.zeros(3), from_rpy(0, 0, 0), COVARIANCE, "home")
    spreads = []
    for yaw in (0.0, 0.02, 0.5):
        later = replace(first, stamp_ns=2, orientation=from_rpy(0, 0, yaw))
        region = Region(300, 250, 40, 60, WIDTH, HEIGHT, 20.0)
        seen = Evidence(Interval(1, 2), "vision", "front", "", 1.0, first, region=region, later_pose=later)
        found = grounding.object_pose(seen)
        assert found is not None
        spreads.append(math.sqrt(found.covariance[1, 1]))
    away = found.position[0]
    assert spreads[0] < spreads[1] < spreads[0] + 0.02 * away
    assert spreads[2] == pytest.approx(math.hypot(spreads[0], away * math.sin(0.5) / math.sqrt(2)), rel=0.02)
    tilted = replace(first, orientation=from_rpy(0, -0.6, 0))
    assert grounding.object_pose(replace(seen, later_pose=tilted)) is None
    assert grounding.counts == {"object": 3, "robot_moved": 1}


def test_a_fisheye_is_undone() -> None:
    model = CameraModel(WIDTH, HEIGHT, CAMERA.matrix, "equidistant", np.array([0.05, -0.01, 0.002, 0.0]), "")
    ray = np.array([0.3, 0.2, 1.0])
    pixel = cv2.fisheye.projectPoints(ray.reshape(1, 1, 3), np.zeros(3), np.zeros(3), model.matrix, model.coefficients)[
        0
    ].reshape(2)
    np.testing.assert_allclose(direction(model, pixel), ray / np.linalg.norm(ray), atol=1e-4)


def test_a_region_is_the_heavy_tokens_that_touch_the_heaviest() -> None:
    weights = np.zeros((6, 10))
    weights[2:4, 3] = (0.8, 1.0)
    weights[4, 4] = 0.6  # touches by a corner
    weights[0, 9] = 0.9  # far away
    weights[3, 2] = 0.3  # too light
    places = np.arange(60)
    assert region_of(places, weights.reshape(-1), (6, 10), (640, 360)) == Region(192, 120, 128, 180, 640, 360)
    kept = np.array([33])  # the memory kept one token alone
    assert region_of(kept, np.array([0.2]), (6, 10), (640, 360)) == Region(192, 180, 64, 60, 640, 360)
    assert region_of(places, np.ones(60), (6, 10), (640, 360)) is None, "all of the picture is no region"
    assert region_of(places, np.zeros(60), (6, 10), (640, 360)) is None
