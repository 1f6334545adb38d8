"""Messages that cannot be taken in, over real ROS: each is counted by its reason, and the node goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from salmonn_interfaces.srv import Query
from salmonn_node.client import Memory
from salmonn_node.messages.base import header_message
from salmonn_node.stream.answers import AnswerType, ErrorCode

from .harness import HEIGHT, PATIENCE_S, SECOND_NS, TYPES, WIDTH, NodeProcess, Robot

pytestmark = pytest.mark.ros


def data(values: Any) -> Any:
    return TYPES.data(bytes(values))


def floats(*values: float) -> Any:
    return data(np.array(values, "<f4").tobytes())


# source, reason, and how the message is wrong
BAD_MESSAGES: list[tuple[str, str, Callable[[Robot, int], Any]]] = [
    ("camera", "image_bad_step", lambda r, t: r.image(t, step=3 * WIDTH - 1)),
    ("camera", "image_bad_size", lambda r, t: r.image(t, height=HEIGHT + 1)),
    ("camera", "image_bad_size", lambda r, t: r.image(t, data=data(b""))),
    ("camera", "image_is_depth", lambda r, t: r.image(t, encoding="64FC7")),
    ("camera", "image_bad_encoding", lambda r, t: r.image(t, encoding="rainbow8")),
    ("camera", "image_bad_encoding", lambda r, t: r.image(t, encoding="")),
    ("camera", "image_empty", lambda r, t: r.image(t, width=0, height=0, step=0, data=data(b""))),
    ("camera", "image_too_large", lambda r, t: r.image(t, width=2**31, height=2**31, step=2**31)),
    ("camera", "stamp_zero", lambda r, t: r.image(0)),
    ("camera", "stamp_out_of_order", lambda r, t: r.image(t - 500_000_000)),
    ("jpeg", "image_truncated", lambda r, t: r.jpeg(t, data=r.jpeg(t).data[:-20])),
    ("jpeg", "image_bad_encoding", lambda r, t: r.jpeg(t, data=data(b"no picture at all"), format="tiff")),
    ("jpeg", "video_no_key_frame", lambda r, t: r.jpeg(t, data=data(b"no picture at all"), format="h264")),
    ("jpeg", "image_empty", lambda r, t: r.jpeg(t, data=data(b""))),
    ("microphone", "audio_not_finite", lambda r, t: r.sound(t, data=floats(0.0, np.nan))),
    ("microphone", "audio_not_finite", lambda r, t: r.sound(t, data=floats(np.inf, 0.0))),
    ("microphone", "audio_bad_size", lambda r, t: r.sound(t, data=data(b"12345"))),
    ("microphone", "audio_empty", lambda r, t: r.sound(t, data=data(b""))),
    ("microphone", "audio_bad_rate", lambda r, t: r.sound(t, sample_rate_hz=0)),
    ("microphone", "audio_bad_channels", lambda r, t: r.sound(t, channels=0)),
    ("microphone", "audio_bad_format", lambda r, t: r.sound(t, encoding=7)),
    ("microphone", "stamp_zero", lambda r, t: r.sound(0)),
    ("pose", "pose_no_frame", lambda r, t: r.odometry(t, header=header_message(TYPES, t, ""))),
    ("pose", "pose_not_finite", lambda r, t: r.odometry(t, float("nan"))),
    ("pose", "stamp_zero", lambda r, t: r.odometry(0)),
]


def publisher(robot: Robot, source: str) -> Any:
    return {"camera": robot.images, "jpeg": robot.jpegs, "microphone": robot.sounds, "pose": robot.poses}[source]


def good(robot: Robot, source: str, stamp_ns: int) -> Any:
    make = {"camera": robot.image, "jpeg": robot.jpeg, "microphone": robot.sound, "pose": robot.odometry}[source]
    return make(stamp_ns)


@pytest.mark.parametrize(("source", "reason", "make"), BAD_MESSAGES, ids=[f"{s}-{r}" for s, r, _ in BAD_MESSAGES])
def test_bad_message_is_counted_and_the_next_good_one_taken(
    robot: Robot, node: NodeProcess, source: str, reason: str, make: Callable[[Robot, int], Any]
) -> None:
    name = f"input {source}"
    taken = robot.count(name, "queued")
    publisher(robot, source).publish(good(robot, source, robot.step()))
    robot.wait(lambda: robot.count(name, "queued") == taken + 1, PATIENCE_S, "a good message is taken before")
    refused = robot.count(name, f"dropped.{reason}")
    publisher(robot, source).publish(make(robot, robot.now_ns + 1000))
    robot.wait(lambda: robot.count(name, f"dropped.{reason}") == refused + 1, PATIENCE_S, f"{reason} is counted")
    publisher(robot, source).publish(good(robot, source, robot.step()))
    robot.wait(lambda: robot.count(name, "queued") == taken + 2, PATIENCE_S, "a good message is taken after")
    assert node.alive()


def test_rate_change_goes_on(robot: Robot, node: NodeProcess) -> None:
    taken = robot.count("input microphone", "queued")
    robot.sounds.publish(robot.sound(robot.step()))
    robot.sounds.publish(robot.sound(robot.now_ns + 100_000_000, sample_rate_hz=48_000))
    robot.wait(lambda: robot.count("input microphone", "queued") == taken + 2, PATIENCE_S, "both rates are taken")


BAD_QUESTIONS: list[tuple[str, dict[str, Any], str]] = [
    ("", {}, "text is empty"),
    ("x" * 1_000_000, {}, "1000000 bytes"),
    ("where?", {"sources": ["kitchen_camera"]}, "kitchen_camera"),
    ("where?", {"after_ns": 2_000_000_000, "before_ns": 1_000_000_000}, "after"),
    ("which?", {"answer_type": AnswerType.CHOICE}, "choices"),
    ("which?", {"answer_type": AnswerType.CHOICE, "choices": ["one"]}, "choices"),
]


@pytest.mark.parametrize(("text", "fields", "named"), BAD_QUESTIONS, ids=[n for _, _, n in BAD_QUESTIONS])
def test_bad_question_is_refused_by_field(memory: Memory, text: str, fields: dict[str, Any], named: str) -> None:
    answer = memory.ask(text, timeout_s=PATIENCE_S, **fields)
    assert answer.error_code == ErrorCode.INVALID_REQUEST
    assert named in answer.error_msg


@pytest.mark.parametrize(("text", "fields", "named"), BAD_QUESTIONS, ids=[n for _, _, n in BAD_QUESTIONS])
def test_node_counts_a_bad_question_that_no_client_stopped(
    robot: Robot, node: NodeProcess, text: str, fields: dict[str, Any], named: str
) -> None:
    request = Query.Request()
    request.question.text = text
    request.question.answer_type = int(fields.get("answer_type", 0))
    request.question.choices = fields.get("choices", [])
    request.question.sources = fields.get("sources", [])
    request.question.after.sec = fields.get("after_ns", 0) // SECOND_NS
    request.question.before.sec = fields.get("before_ns", 0) // SECOND_NS
    request.question.timeout.sec = int(PATIENCE_S)
    robot.wait(robot.queries.service_is_ready, PATIENCE_S, "the node's service is discovered")
    refused = robot.steady("questions", "replied.INVALID_REQUEST")
    future = robot.queries.call_async(request)
    robot.wait(future.done, PATIENCE_S, "a reply")
    assert future.result().answer.error_code == int(ErrorCode.INVALID_REQUEST)
    assert named in future.result().answer.error_msg
    robot.wait(
        lambda: robot.count("questions", "replied.INVALID_REQUEST") == refused + 1, PATIENCE_S, "the refusal is counted"
    )


@pytest.mark.parametrize(("change", "named"), [({"answer_type": 99}, "answer_type is 99"), ({"sec": -1}, "timeout")])
def test_bad_numbers_of_a_question_are_refused(robot: Robot, node: NodeProcess, change: dict[str, int], named: str):
    request = Query.Request()
    request.question.text = "where?"
    request.question.answer_type = change.get("answer_type", 0)
    request.question.timeout.sec = change.get("sec", 0)
    future = robot.queries.call_async(request)
    robot.wait(future.done, PATIENCE_S, "a reply")
    assert future.result().answer.error_code == int(ErrorCode.INVALID_REQUEST)
    assert named in future.result().answer.error_msg


def test_unknown_frame_is_a_transform_error(memory: Memory, robot: Robot, node: NodeProcess) -> None:
    stamp = robot.step()
    robot.poses.publish(robot.odometry(stamp - 100_000_000, 1.0))
    robot.poses.publish(robot.odometry(stamp + 100_000_000, 1.0))
    frames = robot.steady("memory", "frames")
    robot.images.publish(robot.image(stamp))
    robot.wait(lambda: robot.count("memory", "frames") == frames + 1, PATIENCE_S, "the image is taken")
    fields = {"target_frame": "moon", "after_ns": stamp - 1_500_000_000}
    answer = memory.ask("say here", answer_type=AnswerType.POSITION, timeout_s=PATIENCE_S, **fields)
    assert answer.error_code == ErrorCode.TRANSFORM_ERROR, answer
    assert "moon" in answer.error_msg
