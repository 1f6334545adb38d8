"""Poses, questions and answers go through messages and come back; malformed ones are refused with the field's name."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salmonn_node.messages import (
    MessageError,
    answer_from_message,
    answer_to_message,
    pose_from_message,
    pose_to_message,
    question_from_message,
    question_to_message,
)
from salmonn_node.messages.base import duration_message, time_message
from salmonn_node.messages.questions import checked_question
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Evidence, Outcome, PoseKind, Question, Region
from salmonn_node.stream.observations import Interval, Pose

POSE = Pose(
    stamp_ns=12_500_000_000,
    frame_id="map",
    position=np.array([1.0, -2.0, 0.25]),
    orientation=np.array([0.0, 0.0, math.sin(0.3), math.cos(0.3)]),
    covariance=np.diag([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
    map_id="floor_2",
)
QUESTION = Question(
    "where is the red box?",
    AnswerType.CHOICE,
    ("kitchen", "hall"),
    1_000_000_001,
    9_000_000_000,
    ("front", "mic"),
    "map",
    2.5,
    3,
    True,
)


def assert_same_pose(a: Pose, b: Pose) -> None:
    for name in ("position", "orientation", "covariance"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-12)
    assert (a.stamp_ns, a.frame_id, a.map_id) == (b.stamp_ns, b.frame_id, b.map_id)


def test_pose_comes_back(types):
    assert_same_pose(pose_from_message(pose_to_message(types, POSE), "floor_2"), POSE)


def test_odometry_and_pose_stamped(types):
    full = pose_to_message(types, POSE)
    zero = types.new("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
    twist = types.new("geometry_msgs/msg/Twist", linear=zero, angular=zero)
    odometry = types.new(
        "nav_msgs/msg/Odometry",
        header=full.header,
        child_frame_id="base_footprint",
        pose=full.pose,
        twist=types.new("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36)),
    )
    pose = pose_from_message(odometry, "floor_2")
    assert_same_pose(pose, POSE)
    assert pose.child_frame_id == "base_footprint"
    plain = pose_from_message(types.new("geometry_msgs/msg/PoseStamped", header=full.header, pose=full.pose.pose))
    assert plain.covariance is None
    np.testing.assert_allclose(plain.position, POSE.position)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"stamp_ns": 0}, "stamp_zero"),
        ({"frame_id": ""}, "pose_no_frame"),
        ({"position": np.array([np.nan, 0, 0])}, "pose_not_finite"),
        ({"orientation": np.array([0.0, 0, 0, np.inf])}, "pose_not_finite"),
        ({"orientation": np.zeros(4)}, "pose_bad_quaternion"),
        ({"orientation": np.array([0.0, 0, 0, 2])}, "pose_bad_quaternion"),
    ],
)
def test_bad_poses_are_refused_by_name(types, change, reason):
    with pytest.raises(MessageError) as error:
        pose_from_message(pose_to_message(types, dataclasses.replace(POSE, **change)))
    assert error.value.reason == reason


@pytest.mark.parametrize("covariance", [np.zeros((6, 6)), np.full((6, 6), np.nan), -np.eye(6)])
def test_covariance_that_says_nothing_is_none(types, covariance):
    message = pose_to_message(types, dataclasses.replace(POSE, covariance=covariance))
    assert pose_from_message(message).covariance is None


def test_question_comes_back(types):
    assert question_from_message(question_to_message(types, QUESTION)) == QUESTION


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"text": ""}, "text is empty"),
        ({"text": "  \n"}, "text is empty"),
        ({"text": "x" * 1_000_000}, "1000000 bytes"),
        ({"answer_type": 99}, "answer_type is 99"),
        ({"choices": []}, "entr.* CHOICE needs 2"),
        ({"choices": ["a"]}, "entr.* CHOICE needs 2"),
        ({"choices": ["a", "a"]}, "differ"),
        ({"choices": ["a", ""]}, "an entry of choices is empty"),
        ({"answer_type": 2}, "choices are given"),
        ({"after": 10_000_000_000}, "after .* is later than before"),
        ({"timeout": -1.0}, "timeout is -1.0 s; it must lie between 0"),
        ({"sources": ["x"] * 1000}, "sources has 1000"),
    ],
)
def test_bad_questions_are_refused_by_name(types, change, text):
    message = question_to_message(types, QUESTION)
    if "after" in change:
        change = {"after": time_message(types, change["after"])}
    if "timeout" in change:
        change = {"timeout": duration_message(types, change["timeout"])}
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(MessageError, match=text):
        question_from_message(message)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"text": None}, "text is None; it must be a string"),
        ({"text": "a \ud83d cross"}, "text holds half a character"),
        ({"text": "a\0b"}, "text holds a zero character"),
        ({"answer_type": "BINARY"}, "answer_type is 'BINARY'; it must be one of ANY"),
        ({"after_ns": None}, "after is None; it must be a whole number"),
        ({"after_ns": -1}, "after is -1 ns; it must not be negative"),
        ({"before_ns": 10**22}, "before is 1.* it must be at most"),
        ({"before_ns": 1.5}, "before is 1.5; it must be a whole number"),
        ({"timeout_s": math.nan}, "timeout is nan s"),
        ({"timeout_s": math.inf}, "timeout is inf s"),
        ({"timeout_s": 1e10}, "timeout is 10000000000.0 s"),
        ({"timeout_s": "soon"}, "timeout is 'soon'; it must be a number"),
        ({"sources": "front"}, "sources is 'front'; it must be a list"),
        ({"sources": (3,)}, "an entry of sources is 3; it must be a string"),
        ({"choices": "red"}, "choices is 'red'; it must be a list"),
        ({"max_evidence": -1}, "max_evidence is -1; it must not be negative"),
        ({"max_evidence": 70_000}, "max_evidence is 70000; it must be at most 65535"),
        ({"target_frame": None}, "target_frame is None; it must be a string"),
    ],
    ids=str,
)
def test_what_does_not_fit_a_message_is_refused_by_name(types, change, text):
    with pytest.raises(MessageError, match=text):
        question_to_message(types, dataclasses.replace(QUESTION, **change))


ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.lists(st.text())


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "text": st.text() | ANYTHING,
            "answer_type": st.integers(0, 8) | ANYTHING,
            "choices": st.lists(st.text(), max_size=4) | ANYTHING,
            "after_ns": st.integers(-5, 2**63) | ANYTHING,
            "before_ns": st.integers(-5, 2**63) | ANYTHING,
            "sources": st.lists(st.text(), max_size=4) | ANYTHING,
            "target_frame": st.text() | ANYTHING,
            "timeout_s": st.floats(0, 1e10) | ANYTHING,
            "max_evidence": st.integers(-2, 70_000) | ANYTHING,
            "want_thumbnails": st.booleans() | ANYTHING,
        },
    )
)
def test_a_question_fits_its_message_or_is_refused(types, change):
    question = dataclasses.replace(Question("where?"), **change)
    try:
        checked = checked_question(question)
    except MessageError:
        return
    assert checked_question(checked) == checked
    back = question_from_message(question_to_message(types, checked))
    assert back == dataclasses.replace(checked, timeout_s=pytest.approx(checked.timeout_s, abs=1e-9))


def test_answer_comes_back(types):
    span, box = Interval(3_000_000_000, 4_500_000_000), Region(96, 32, 64, 128, 640, 360)
    evidence = (
        Evidence(span, "vision", "front", "front_optical", 0.75, POSE, b"\xff\xd8", box),
        Evidence(Interval(3_000_000_000, 3_000_000_000), "audio", "mic", "mic_link", 0.25),
    )
    answer = Answer(
        outcome=Outcome.AMBIGUOUS,
        answer_type=AnswerType.POSITION,
        text="near the door",
        pose=POSE,
        pose_kind=PoseKind.OBJECT,
        event=Interval(3_000_000_000, 4_500_000_000),
        duration_s=1.5,
        count=3,
        confidence=0.5,
        evidence=evidence,
        map_id="floor_2",
        memory_id="default",
        memory_start_ns=1,
        last_observation_ns=5_000_000_000,
        latency_s=0.125,
    )
    back = answer_from_message(answer_to_message(types, answer))
    assert_same_pose(back.pose, POSE)
    assert_same_pose(back.evidence[0].pose, POSE)
    plain = {"pose": None, "evidence": ()}
    assert dataclasses.replace(back, **plain) == dataclasses.replace(answer, **plain)
    for got, sent in zip(back.evidence, evidence, strict=True):
        assert dataclasses.replace(got, pose=None) == dataclasses.replace(sent, pose=None)


def test_error_answer_comes_back(types):
    back = answer_from_message(answer_to_message(types, Answer(error_code=ErrorCode.BUSY, error_msg="later")))
    assert (back.error_code, back.error_msg, back.pose, back.event) == (ErrorCode.BUSY, "later", None, None)
    assert math.isnan(back.confidence)
