"""Frames in time: chains, interpolation, limits; poses go there and back with their covariance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salmonn_node.stream.frame_tree import FrameTree
from salmonn_node.stream.observations import SECOND_NS as S
from salmonn_node.stream.observations import Pose
from salmonn_node.stream.transforms import chained, from_rpy, inverted, mounted, rotation, times


def place(parent: str, child: str, t_s: float, x: float = 0.0, y: float = 0.0, yaw: float = 0.0) -> Pose:
    return Pose(round(t_s * S), parent, np.array([x, y, 0.0]), from_rpy(0, 0, yaw), child_frame_id=child)


def robot() -> FrameTree:
    """Odometry drifts in the map, the robot drives one metre a second; its camera and the map itself are fixed."""
    tree = FrameTree()
    tree.add(place("utm", "map", 0, x=1000.0, yaw=math.pi / 2), static=True)
    tree.add(mounted("base_link", "optical", (0.2, 0.0, 1.0, -math.pi / 2, 0.0, -math.pi / 2)), static=True)
    for k in range(1, 101):
        tree.add(place("map", "odom", 0.2 * k, y=0.02 * k))
        tree.add(place("odom", "base_link", 0.2 * k, x=0.2 * k))
    return tree


def test_up_down_and_across() -> None:
    tree = robot()
    up = tree.lookup("map", "optical", round(10.1 * S))
    np.testing.assert_allclose(up.position, [10.3, 1.01, 1.0], atol=1e-9)
    np.testing.assert_allclose(rotation(up.orientation) @ [0, 0, 1], [1, 0, 0], atol=1e-9)  # it looks ahead
    down = tree.lookup("optical", "map", round(10.1 * S))
    np.testing.assert_allclose(chained(up, down).position, 0, atol=1e-9)
    far = tree.lookup("utm", "base_link", 10 * S)
    np.testing.assert_allclose(far.position, [999.0, 10.0, 0.0], atol=1e-9)
    assert tree.lookup("map", "map", 5 * S).position.tolist() == [0, 0, 0]
    assert tree.frames == ("base_link", "map", "odom", "optical", "utm")


def test_times_and_frames_that_are_not_known() -> None:
    tree = robot()
    assert tree.lookup("map", "optical", round(20.9 * S)) is not None  # held for a second
    assert tree.lookup("map", "optical", 22 * S) is None
    assert tree.lookup("utm", "map", 22 * S) is not None  # static ones hold at all times
    assert tree.lookup("mars", "map", 5 * S) is None
    for t_s in (30.0, 31.0):
        tree.add(place("map", "odom", t_s))
        tree.add(place("odom", "base_link", t_s))
    assert tree.lookup("map", "base_link", 25 * S) is None, "no bridge across ten seconds"
    assert tree.lookup("map", "base_link", round(30.5 * S)) is not None


def test_what_is_no_transform_is_refused_and_the_tree_stays() -> None:
    tree = FrameTree(max_frames=2, capacity=8)
    assert tree.add(place("map", "map", 1)) == "transform_no_frame"
    assert tree.add(place("", "odom", 1)) == "transform_no_frame"
    assert tree.add(place("map", "odom", 0)) == "transform_stamp_zero"
    assert tree.add(place("map", "odom", 1, x=math.nan)) == "transform_not_finite"
    assert tree.add(Pose(S, "map", np.zeros(3), np.zeros(4), child_frame_id="odom")) == "transform_not_finite"
    assert tree.frames == ()
    assert tree.add(place("map", "odom", 1)) == "taken"
    assert tree.add(place("map", "odom", 1.05)) == "transform_passed_over"
    assert tree.add(place("map", "arm", 1)) == "taken"
    assert tree.add(place("map", "hand", 1)) == "transform_too_many_frames"
    for k in range(100):
        assert tree.add(place("map", "odom", 2 + k, x=k)) == "taken"
    assert tree.lookup("map", "odom", 50 * S) is None, "the oldest have gone"
    assert tree.lookup("map", "odom", 101 * S).position[0] == 99
    assert tree.add(place("map", "odom", 3)) == "taken"  # the bag began again
    assert tree.lookup("map", "odom", 101 * S) is None
    with pytest.raises(ValueError, match="capacity"):
        FrameTree(capacity=0)


def test_a_loop_of_frames_ends() -> None:
    tree = FrameTree()
    for parent, child in (("a", "b"), ("b", "c"), ("c", "a")):
        tree.add(place(parent, child, 1), static=True)
    assert tree.lookup("elsewhere", "a", S) is None


angles = st.floats(-3.0, 3.0)


@settings(max_examples=50, deadline=None)
@given(angles, angles, angles, st.tuples(*[st.floats(-9, 9)] * 3), angles)
def test_there_and_back(roll, pitch, yaw, position, other) -> None:
    pose = Pose(7, "a", np.array(position), from_rpy(roll, pitch, yaw), np.diag([1, 2, 3, 4, 5, 6.0]), "home", "b")
    outer = Pose(7, "w", np.array([1.0, 2, 3]), from_rpy(other, roll, pitch), child_frame_id="a")
    there = chained(outer, pose)
    back = chained(inverted(outer), there)
    np.testing.assert_allclose(back.position, pose.position, atol=1e-9)
    np.testing.assert_allclose(rotation(back.orientation), rotation(pose.orientation), atol=1e-9)
    np.testing.assert_allclose(back.covariance, pose.covariance, atol=1e-9)
    assert (there.frame_id, there.map_id, there.child_frame_id, there.stamp_ns) == ("w", "home", "b", 7)
    np.testing.assert_allclose(np.linalg.eigvalsh(there.covariance), [1, 2, 3, 4, 5, 6.0], atol=1e-9)
    both = times(outer.orientation, pose.orientation)
    np.testing.assert_allclose(rotation(both), rotation(outer.orientation) @ rotation(pose.orientation), atol=1e-9)
    fixed = rotation(from_rpy(0, 0, yaw)) @ rotation(from_rpy(0, pitch, 0)) @ rotation(from_rpy(roll, 0, 0))
    np.testing.assert_allclose(rotation(pose.orientation), fixed, atol=1e-9)


def test_poses_that_do_not_follow_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot follow"):
        chained(place("map", "odom", 1), place("base_link", "optical", 1))
    with pytest.raises(ValueError, match="6 numbers"):
        mounted("base_link", "optical", (1.0, 2.0))
