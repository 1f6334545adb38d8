"""Poses from tf: each lies between transforms, and the order in which transforms come changes none of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from salmonn_node.stream.frame_tree import NEW_START_NS, FrameTree
from salmonn_node.stream.observations import SECOND_NS, Pose
from salmonn_node.stream.tf_poses import MAX_WAITING, TfPoses

LEVEL = np.array([0.0, 0.0, 0.0, 1.0])
START_NS = 100 * SECOND_NS


def transform(seconds: float, parent: str, child: str, x: float) -> Pose:
    return Pose(START_NS + round(seconds * SECOND_NS), parent, np.array([x, 0.0, 0.0]), LEVEL, child_frame_id=child)


def odometry(seconds: float) -> Pose:
    """The robot drives 1 m/s in odom."""
    return transform(seconds, "odom", "base_link", seconds)


def localisation(seconds: float) -> Pose:
    """Odometry drifts 0.1 m/s against the map."""
    return transform(seconds, "map", "odom", 5.0 + 0.1 * seconds)


def walk(messages: list[Pose], fixed: str = "map") -> list[Pose]:
    tree = FrameTree()
    tree.add(transform(0.0, "base_link", "camera", 0.3), static=True)
    poses = TfPoses(tree, fixed, "base_link", "house")
    made = []
    for message in messages:
        tree.add(message)
        made += poses.poses([message])
    return made


def moving(seconds: float, slow_hz: float = 2.0, late_s: float = 0.0) -> list[Pose]:
    fast = [(t, odometry(t)) for t in np.arange(0.0, seconds, 0.05)]
    slow = [(t + late_s, localisation(t)) for t in np.arange(0.0, seconds, 1 / slow_hz)]
    return [message for _, message in sorted(fast + slow, key=lambda item: item[0])]


def test_the_pose_in_the_map_is_that_of_both_transforms() -> None:
    made = walk(moving(20.0, late_s=0.3))
    assert len(made) > 100
    for pose in made:
        t = (pose.stamp_ns - START_NS) / SECOND_NS
        np.testing.assert_allclose(pose.position, [5.0 + 1.1 * t, 0.0, 0.0], atol=1e-6)
        assert (pose.frame_id, pose.child_frame_id, pose.map_id) == ("map", "base_link", "house")
    stamps = [pose.stamp_ns for pose in made]
    assert all(later - earlier >= SECOND_NS // 10 for earlier, later in zip(stamps, stamps[1:], strict=False))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.0, 0.9), min_size=8, max_size=8))
def test_how_late_each_localisation_comes_changes_no_pose(lateness: list[float]) -> None:
    fast = [(t, odometry(t)) for t in np.arange(0.0, 8.0, 0.1)]
    slow = [(float(t), localisation(t)) for t in range(8)]
    late = [(t + by, message) for (t, message), by in zip(slow, lateness, strict=True)]
    orders = [[message for _, message in sorted(fast + some, key=lambda item: item[0])] for some in (slow, late)]
    first, second = (walk(order) for order in orders)
    assert [(p.stamp_ns, p.position.tobytes()) for p in first] == [(p.stamp_ns, p.position.tobytes()) for p in second]


def test_no_pose_before_all_is_known_and_none_where_nothing_moves() -> None:
    assert walk([odometry(t) for t in np.arange(0.0, 2.0, 0.1)]) == []
    assert len(walk([odometry(t) for t in np.arange(0.0, 2.0, 0.1)], "odom")) == 20
    assert walk(moving(2.0), "camera") == []


def test_time_that_runs_anew_gives_poses_again() -> None:
    made = walk(moving(30.0) + moving(5.0))
    again = [pose for before, pose in zip(made, made[1:], strict=False) if pose.stamp_ns < before.stamp_ns]
    assert len(again) == 1
    assert made[-1].stamp_ns > START_NS + 3 * SECOND_NS


def test_at_most_ten_poses_a_second_are_made_the_first_of_each_tenth() -> None:
    made = walk([odometry(t) for t in (0.0, 0.05, 0.1, 0.15, 0.199999999, 0.2)], "odom")
    assert [round((p.stamp_ns - START_NS) / SECOND_NS, 9) for p in made] == [0.0, 0.1, 0.2]


def test_several_transforms_at_once_give_the_poses_that_they_give_one_by_one() -> None:
    messages = moving(5.0)
    tree = FrameTree()
    poses = TfPoses(tree, "map", "base_link", "house")
    for message in messages:
        tree.add(message)
    together = poses.poses(reversed(messages))
    assert [p.stamp_ns for p in together] == [p.stamp_ns for p in walk(messages)]
    assert poses.poses(messages) == [], "each transform gives its pose once"


def test_without_a_name_the_map_has_none_and_a_transform_elsewhere_makes_no_pose() -> None:
    tree = FrameTree()
    poses = TfPoses(tree, "odom", "base_link")
    tree.add(odometry(0.0))
    assert [p.map_id for p in poses.poses([odometry(0.0)])] == [""]
    arm = transform(0.5, "base_link", "arm", 1.0)
    tree.add(arm)
    tree.add(odometry(1.0))
    assert poses.poses([arm]) == []
    assert [p.stamp_ns for p in poses.poses([odometry(1.0)])] == [START_NS + SECOND_NS]


def test_time_runs_anew_only_after_a_long_step_back() -> None:
    for back_ns, anew in ((NEW_START_NS, False), (NEW_START_NS + 1, True)):
        tree = FrameTree()
        poses = TfPoses(tree, "odom", "base_link")
        late = Pose(START_NS + 100 * SECOND_NS, "odom", np.zeros(3), LEVEL, child_frame_id="base_link")
        early = Pose(late.stamp_ns - back_ns, "odom", np.zeros(3), LEVEL, child_frame_id="base_link")
        tree.add(late)
        assert len(poses.poses([late])) == 1
        tree.add(early)
        assert len(poses.poses([early])) == anew


def test_of_transforms_that_wait_too_long_the_newest_are_kept() -> None:
    tree = FrameTree()
    poses = TfPoses(tree, "map", "base_link", "house")
    steps = [odometry(0.001 * n) for n in range(MAX_WAITING + 500)]
    tree.add(localisation(0.0))
    for step in steps:
        tree.add(step)
        assert poses.poses([step]) == [] or step is steps[0]
    tree.add(localisation(2.0))
    made = poses.poses([localisation(2.0)])
    assert made[0].stamp_ns == steps[-MAX_WAITING + 1].stamp_ns, "one place is for the localisation"
