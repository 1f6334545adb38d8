"""Deadlines, order, cancelling and typed answers over real ROS."""

from __future__ import annotations

import threading

import pytest

from salmonn_interfaces.srv import Query
from salmonn_node.client import Memory
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode

from .harness import PATIENCE_S, Robot

pytestmark = pytest.mark.ros


def in_background(ask) -> tuple[threading.Thread, list[Answer]]:
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(ask()))
    thread.start()
    return thread, answers


def test_answer_has_evidence_and_pose(memory: Memory, seen: int, robot: Robot) -> None:
    after = seen - 1_000_000_000
    answer = memory.ask("say here", answer_type=AnswerType.POSITION, after_ns=after, timeout_s=PATIENCE_S)
    assert answer.error_code == ErrorCode.NONE, answer
    assert robot.status is not None
    assert ("untrained weights" in answer.text) == (not robot.status.checkpoint_trained)
    assert answer.evidence[0].source == "camera"
    interval = answer.evidence[0].interval
    # A temporal patch spans two images, and bears the stamp and the pose of the first.
    assert after - 1_000_000_000 <= interval.start_ns <= interval.end_ns <= seen
    assert answer.pose is not None
    assert answer.pose.position[0] == pytest.approx(2.0)
    assert answer.memory_id.startswith("default")


def test_deadline_is_kept_though_the_network_does_not_listen(memory: Memory, seen: int) -> None:
    answer = memory.ask("deaf 5.0", timeout_s=0.5)
    assert answer.error_code == ErrorCode.TIMEOUT
    assert answer.latency_s < 5.0, "the reply waited for the network"
    # The turn is over when the network is done; the next question gets it.
    assert memory.ask("say so", timeout_s=PATIENCE_S).error_code == ErrorCode.NONE


def test_waits_for_observations_up_to_before(memory: Memory, seen: int, robot: Robot) -> None:
    before = seen + 2_000_000_000
    thread, answers = in_background(lambda: memory.ask("say so", before_ns=before, timeout_s=PATIENCE_S))
    open_questions = lambda: robot.count("questions", "open")  # noqa: E731
    robot.wait(lambda: open_questions() == 1, PATIENCE_S, "the question waits")
    assert not answers
    for _ in range(3):
        robot.images.publish(robot.image(robot.step()))
    thread.join(PATIENCE_S)
    assert answers[0].error_code == ErrorCode.NONE, answers
    assert answers[0].last_observation_ns >= before


def test_before_in_the_future_times_out(memory: Memory, seen: int) -> None:
    answer = memory.ask("say so", before_ns=seen + 3_600_000_000_000, timeout_s=0.4)
    assert answer.error_code == ErrorCode.TIMEOUT


def test_action_gives_partial_text_and_cancels(memory: Memory, seen: int, robot: Robot) -> None:
    parts: list[str] = []
    answer = memory.ask("say a b c", on_text=parts.append, timeout_s=PATIENCE_S)
    assert answer.error_code == ErrorCode.NONE, answer
    assert parts[-1] == "abc"
    cancel = threading.Event()
    thread, answers = in_background(lambda: memory.ask("hang", cancel=cancel, timeout_s=60.0))
    robot.wait(lambda: robot.count("questions", "open") == 1, PATIENCE_S, "the question is being answered")
    cancel.set()
    thread.join(PATIENCE_S)
    assert answers[0].error_code == ErrorCode.CANCELED
    robot.wait(lambda: robot.count("questions", "open") == 0, PATIENCE_S, "nothing is open any more")


def test_earliest_deadline_first_and_busy(memory: Memory, seen: int, robot: Robot) -> None:
    # Three of these teach the queue that one takes about half a second.
    for _ in range(3):
        assert memory.ask("deaf 0.5", timeout_s=PATIENCE_S).error_code == ErrorCode.NONE
    robot.wait(lambda: robot.count("questions", "open") == 0, PATIENCE_S, "nothing is open any more")
    order: list[str] = []

    def ask(name: str, timeout_s: float, text: str = "deaf 0.5") -> Answer:
        answer = memory.ask(text, timeout_s=timeout_s)
        order.append(name)
        return answer

    first, _ = in_background(lambda: ask("first", 60.0, "deaf 3.0"))  # the others come while it is answered
    robot.wait(lambda: robot.count("questions", "open") == 1, PATIENCE_S, "the first is being answered")
    late, _ = in_background(lambda: ask("late", 60.0))
    robot.wait(lambda: robot.count("questions", "open") == 2, PATIENCE_S, "the second waits")
    early, _ = in_background(lambda: ask("early", 45.0))
    busy = memory.ask("deaf 0.5", timeout_s=0.3)
    for thread in (first, late, early):
        thread.join(PATIENCE_S)
    assert order == ["first", "early", "late"]
    assert busy.error_code == ErrorCode.BUSY
    assert "come first" in busy.error_msg


def test_hundred_questions_each_get_one_reply_in_time(memory: Memory, seen: int, robot: Robot) -> None:
    dropped = robot.steady("memory", "dropped.queue_full")
    request = Query.Request()
    request.question.text = "say so"
    request.question.timeout.sec = 2
    futures = [robot.queries.call_async(request) for _ in range(100)]
    for _ in range(5):
        robot.images.publish(robot.image(robot.step()))
    robot.wait(lambda: all(f.done() for f in futures), PATIENCE_S, "all have a reply")
    answers = [f.result().answer for f in futures]
    latencies = [a.latency.sec + a.latency.nanosec * 1e-9 for a in answers]
    assert {a.error_code for a in answers} <= {int(c) for c in (ErrorCode.NONE, ErrorCode.TIMEOUT, ErrorCode.BUSY)}
    assert sum(a.error_code == 0 for a in answers) > 0
    assert all(s <= 2.0 for s, a in zip(latencies, answers, strict=True) if a.error_code == 0)
    assert robot.count("memory", "dropped.queue_full") == dropped


def test_small_steps_of_the_clock_are_counted_and_begin_no_session(memory: Memory, seen: int, robot: Robot) -> None:
    session, steps = robot.steady("memory", "session"), robot.steady("memory", "clock_steps_tolerated")
    for n in range(1, 7):
        robot.step(-0.005)  # as with two publishers of /clock
        robot.wait(
            lambda n=n: robot.count("memory", "clock_steps_tolerated") >= steps + n, PATIENCE_S, "the step is counted"
        )
    assert robot.count("memory", "session") == session


def test_clear_and_clock_jump_begin_new_sessions(memory: Memory, seen: int, robot: Robot) -> None:
    session = robot.steady("memory", "session")
    memory.clear()
    robot.wait(lambda: robot.count("memory", "session") == session + 1, PATIENCE_S, "a new session after clear")
    assert memory.ask("say so", timeout_s=PATIENCE_S).error_code == ErrorCode.EMPTY_MEMORY
    robot.images.publish(robot.image(robot.step()))
    robot.wait(lambda: robot.count("memory", "frames") == 1, PATIENCE_S, "the new memory takes the image")
    refused = robot.steady("input camera", "dropped")
    robot.now_ns -= 500_000_000_000
    robot.images.publish(robot.image(robot.step()))
    robot.wait(lambda: robot.count("memory", "session") >= session + 2, PATIENCE_S, "a new session after the jump")
    robot.wait(
        lambda: robot.status is not None and robot.status.session >= session + 2, PATIENCE_S, "MemoryStatus says it"
    )
    # The image raced with the clock: it may have been refused, one that follows is not.
    robot.images.publish(robot.image(robot.step()))
    robot.wait(lambda: robot.count("memory", "frames") >= 1, PATIENCE_S, "the new session takes images")

    def settled() -> bool:
        return robot.count("memory", "frames") + robot.count("input camera", "dropped") - refused == 2

    robot.wait(settled, PATIENCE_S, "what became of both images is known")
