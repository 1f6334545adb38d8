"""Poses are interpolated where they are known and withheld where they are not."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salmonn_node.stream.observations import SECOND_NS as S
from salmonn_node.stream.observations import Interval, Pose
from salmonn_node.stream.pose_track import PoseTrack, slerp


def pose(t_s: float, x: float = 0.0, yaw: float = 0.0, map_id: str = "home", covariance: float = 0.1) -> Pose:
    orientation = np.array([0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)])
    return Pose(round(t_s * S), "map", np.array([x, 0.0, 0.0]), orientation, np.eye(6) * covariance, map_id)


def yaw_of(p: Pose) -> float:
    return 2 * math.atan2(p.orientation[2], p.orientation[3])


def test_between_two_poses() -> None:
    track = PoseTrack()
    track.add(pose(1.0, x=0.0, yaw=0.0, covariance=0.1))
    track.add(pose(2.0, x=4.0, yaw=1.0, covariance=0.3))
    middle = track.at(round(1.75 * S))
    assert middle is not None
    assert middle.stamp_ns == round(1.75 * S)
    assert middle.position[0] == pytest.approx(3.0)
    assert yaw_of(middle) == pytest.approx(0.75)
    assert middle.covariance[0, 0] == pytest.approx(0.3)
    assert middle.map_id == "home"


def test_not_across_gaps_nor_maps_nor_far_ends() -> None:
    track = PoseTrack(max_gap_s=1.0, max_age_s=0.5)
    track.add(pose(1.0))
    track.add(pose(5.0, x=8.0))
    assert track.at(3 * S) is None
    assert track.at(round(5.4 * S)).position[0] == 8.0
    assert track.at(6 * S) is None
    assert track.at(round(0.2 * S)) is None
    track.add(pose(5.5, x=100.0, map_id="office"))
    near = track.at(round(5.2 * S))
    assert (near.map_id, near.position[0]) == ("home", 8.0)


def test_where_two_poses_do_not_belong_together_the_nearer_one_counts() -> None:
    track = PoseTrack(max_gap_s=1.0, max_age_s=0.5)
    track.add(pose(1.0, x=1.0, map_id="home"))
    track.add(pose(1.8, x=2.0, map_id="office"))
    assert [track.at(round(t * S)).position[0] for t in (1.1, 1.39, 1.41, 1.7)] == [1.0, 1.0, 2.0, 2.0]
    assert track.at(round(1.41 * S)).map_id == "office"
    assert track.at(round(1.41 * S)).stamp_ns == round(1.41 * S)


def test_the_longest_gap_and_the_greatest_age_still_count() -> None:
    track = PoseTrack(max_gap_s=1.0, max_age_s=0.5)
    track.add(pose(1.0))
    track.add(pose(2.0, x=1.0))
    assert track.at(round(1.5 * S)).position[0] == pytest.approx(0.5)
    assert (track.at(S // 2) is None, track.at(S // 2 - 1) is None) == (False, True)
    assert (track.at(5 * S // 2) is None, track.at(5 * S // 2 + 1) is None) == (False, True)
    track.add(Pose(3 * S + 1, "map", np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]), None, "home"))
    assert track.at(round(2.6 * S)).position[0] == 0.0  # the nearer one, not a place between
    defaults = PoseTrack()
    defaults.add(pose(10.0))
    assert (defaults.at(19 * S // 2) is None, defaults.at(19 * S // 2 - 1) is None) == (False, True)


def test_refusals_leave_the_track_unchanged() -> None:
    track = PoseTrack()
    assert track.add(pose(1.0)) == "taken"
    assert track.add(pose(0.5)) == "stamp_out_of_order"
    assert track.add(pose(0.0)) == "stamp_zero"
    assert track.add(pose(2.0, x=math.nan)) == "pose_not_finite"
    zero = Pose(3 * S, "map", np.zeros(3), np.zeros(4))
    assert track.add(zero) == "pose_not_finite"
    assert len(track) == 1


def test_the_oldest_go_first() -> None:
    track = PoseTrack(capacity=10)
    for t in range(1, 40):
        track.add(pose(float(t)))
    assert len(track) == 10
    assert track.at(5 * S) is None


def test_a_track_is_settled_once_a_pose_lies_at_or_after_a_stamp() -> None:
    track = PoseTrack()
    assert not track.settled(1)
    track.add(pose(2.0))
    assert [track.settled(ns) for ns in (2 * S - 1, 2 * S, 2 * S + 1)] == [True, True, False]


def test_an_interval_is_forgotten_with_its_ends_and_nothing_else() -> None:
    track = PoseTrack()
    for t in range(1, 7):
        track.add(pose(float(t), x=float(t)))
    track.forget(Interval(3 * S, 4 * S))
    assert len(track) == 4
    assert [track.at(t * S) is None for t in range(1, 7)] == [False, False, True, True, False, False]
    assert track.at(5 * S).position[0] == 5.0
    track.clear()
    assert (len(track), track.newest) == (0, None)


def test_the_state_holds_the_last_poses_and_gives_the_same_track_back() -> None:
    track = PoseTrack()
    assert track.to_state(10.0) == []
    for t in range(1, 7):
        track.add(pose(float(t), x=float(t), yaw=t / 10, covariance=t / 100))
    other = PoseTrack()
    other.add(pose(99.0))
    other.restore(json.loads(json.dumps(track.to_state(2.0))))
    assert len(other) == 3, "two seconds back, the end included"
    assert other.newest.stamp_ns == 6 * S
    for ns in (4 * S, 4 * S + S // 3, 6 * S):
        one, two = track.at(ns), other.at(ns)
        assert one.to_state() == two.to_state()
    assert other.at(3 * S) is None


def test_slerp_goes_the_short_way() -> None:
    start, end = np.array([0.0, 0.0, 0.0, 1.0]), -np.array([0.0, 0.0, math.sin(0.2), math.cos(0.2)])
    half = slerp(start, end, 0.5)
    assert abs(half[2]) == pytest.approx(math.sin(0.1))
    assert np.linalg.norm(half) == pytest.approx(1.0)


@given(
    st.lists(st.tuples(st.integers(1, 3_000), st.floats(-50, 50), st.booleans()), min_size=2, max_size=30),
    st.integers(-2_000, 40_000),
)
def test_a_pose_is_known_only_near_poses_and_lies_between_them(steps, when) -> None:
    track, poses, stamp = PoseTrack(max_gap_s=1.0, max_age_s=0.5), [], 0
    for step_ms, x, other in steps:
        stamp += step_ms
        poses.append(pose(stamp / 1000, x, covariance=stamp, map_id="office" if other else "home"))
        assert track.add(poses[-1]) == "taken"
    found = track.at(when * 1_000_000)
    before = [p for p in poses if p.stamp_ns <= when * 1_000_000]
    after = [p for p in poses if p.stamp_ns >= when * 1_000_000]
    nearest = min(poses, key=lambda p: abs(p.stamp_ns - when * 1_000_000))
    within = bool(before and after) and after[0].stamp_ns - before[-1].stamp_ns <= S
    bridged = within and before[-1].map_id == after[0].map_id
    assert (found is not None) == (bridged or abs(nearest.stamp_ns - when * 1_000_000) <= S // 2)
    if found is None:
        return
    assert found.stamp_ns == when * 1_000_000
    ends = (before[-1], after[0]) if bridged else (nearest, nearest)
    low, high = sorted(p.position[0] for p in ends)
    if bridged:
        assert low - 1e-9 <= found.position[0] <= high + 1e-9
        assert found.map_id == before[-1].map_id
    # The covariance is that of a pose that was given, and the map is that pose's.
    assert any((found.covariance == p.covariance).all() and found.map_id == p.map_id for p in poses)


@pytest.mark.parametrize("name", ["max_gap_s", "max_age_s", "capacity"])
def test_arguments_must_be_positive(name: str) -> None:
    with pytest.raises(ValueError, match=rf"arguments must be positive: .*{name}=0"):
        PoseTrack(**{name: 0})
    PoseTrack(**{name: 1})
    with pytest.raises(ValueError, match=name):
        PoseTrack(**{name: -1})


def test_without_arguments_a_second_is_bridged_and_half_a_second_reached() -> None:
    track = PoseTrack()
    for t, x in ((1.0, 0.0), (2.0, 1.0), (3.000000001, 5.0)):
        track.add(pose(t, x=x))
    assert track.at(round(1.75 * S)).position[0] == pytest.approx(0.75)
    assert track.at(round(2.25 * S)).position[0] == 1.0, "a gap of more than a second: the nearer pose itself"
    assert track.at(3 * S + S // 2 + 1).position[0] == 5.0
    assert track.at(3 * S + S // 2 + 2) is None
    for t in range(4, 20_010):
        track.add(pose(float(t)))
    assert len(track) == 20_000


def test_every_field_of_a_pose_is_given_back() -> None:
    def full(t_s: float, name: str) -> Pose:
        at = np.array([t_s, 2.0, 3.0])
        return Pose(round(t_s * S), "odom", at, np.array([1.0, 0, 0, 0]), np.eye(6) * t_s, "home", name)

    track = PoseTrack()
    track.add(full(1.0, "one"))
    track.add(full(2.0, "two"))
    for t_s, name in ((0.75, "one"), (1.25, "one"), (1.5, "two"), (1.75, "two"), (2.25, "two")):
        found, nearer = track.at(round(t_s * S)), full({"one": 1.0, "two": 2.0}[name], name)
        assert (found.stamp_ns, found.frame_id, found.map_id) == (round(t_s * S), "odom", "home")
        assert found.child_frame_id == name
        np.testing.assert_allclose(found.orientation, nearer.orientation)
        np.testing.assert_array_equal(found.covariance, nearer.covariance)
        np.testing.assert_allclose(found.position, [min(max(t_s, 1.0), 2.0), 2.0, 3.0])


def test_poses_of_two_frames_are_not_mixed() -> None:
    track = PoseTrack()
    track.add(pose(1.0, x=0.0))
    track.add(Pose(round(1.5 * S), "odom", np.array([9.0, 0, 0]), np.array([0, 0, 0, 1.0]), map_id="home"))
    assert track.at(round(1.2 * S)).position[0] == 0.0
    assert track.at(round(1.3 * S)).frame_id == "odom"


@pytest.mark.parametrize(("norm", "fate"), [(1.049, "taken"), (1.051, "pose_not_finite"), (0.951, "taken"),
                                            (0.949, "pose_not_finite"), (math.nan, "pose_not_finite")])  # fmt: skip
def test_an_orientation_is_nearly_a_unit_quaternion(norm: float, fate: str) -> None:
    track = PoseTrack()
    assert track.add(Pose(1, "map", np.zeros(3), np.array([0.0, 0.0, 0.6, 0.8]) * norm)) == fate
    assert len(track) == (fate == "taken")


def test_a_repeated_stamp_is_out_of_order() -> None:
    track = PoseTrack()
    assert track.add(pose(1.0)) == "taken"
    assert track.add(pose(1.0)) == "stamp_out_of_order"
    assert track.newest.stamp_ns == S


@pytest.mark.parametrize("angle", [0.001, 0.03, 0.1, 1.0, 3.0])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.9, 1.0])
def test_slerp_turns_evenly(angle: float, share: float) -> None:
    start = np.array([0.0, 0.0, 0.0, 1.0])
    end = np.array([0.0, 0.0, math.sin(angle / 2), math.cos(angle / 2)])
    expected = [0.0, 0.0, math.sin(share * angle / 2), math.cos(share * angle / 2)]
    np.testing.assert_allclose(slerp(start, end, share), expected, atol=1e-7)
    np.testing.assert_allclose(slerp(start, -end, share), expected, atol=1e-7)
    assert np.linalg.norm(slerp(start, end, share)) == pytest.approx(1.0, abs=1e-12)
