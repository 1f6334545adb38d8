"""The client as planners use it: whoever spins their node, in callbacks, twice, with a cancel at any instant."""

from __future__ import annotations

import gc
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from salmonn_node.client import ACTION_QOS, AnswerType, ErrorCode, Memory, Watched

from .harness import PATIENCE_S, ROOT, NodeProcess, Robot, _environment

pytestmark = pytest.mark.ros

ANSWERED = (ErrorCode.NONE, ErrorCode.EMPTY_MEMORY)


@pytest.fixture
def planner(robot: Robot) -> Iterator[Node]:
    """A node that nobody spins."""
    node = rclpy.create_node("planner")
    yield node
    node.destroy_node()


def test_asks_though_the_node_was_spun_once(node: NodeProcess, planner: Node) -> None:
    memory = Memory(planner)
    rclpy.spin_once(planner, timeout_sec=0.0)
    assert memory.ask("say so", timeout_s=PATIENCE_S).error_code in ANSWERED
    executor = SingleThreadedExecutor()
    executor.add_node(planner)
    executor.spin_once(timeout_sec=0.0)
    assert memory.ask("say so", timeout_s=PATIENCE_S).error_code in ANSWERED
    assert Memory(planner).ask("say so", timeout_s=PATIENCE_S).error_code in ANSWERED
    executor.shutdown()


def test_two_memories_on_one_node_at_the_same_time(node: NodeProcess, planner: Node) -> None:
    codes: list[ErrorCode] = []

    def ask(memory: Memory) -> None:
        for _ in range(5):
            codes.append(memory.ask("say so", timeout_s=PATIENCE_S).error_code)

    threads = [threading.Thread(target=ask, args=(Memory(planner),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(codes) == 10
    assert set(codes) <= set(ANSWERED)


def test_asks_in_a_callback_of_a_single_threaded_executor(node: NodeProcess, planner: Node) -> None:
    memory, answers = Memory(planner), []

    def tick() -> None:
        timer.cancel()
        answers.append(memory.ask("say so", timeout_s=PATIENCE_S))

    timer = planner.create_timer(0.01, tick)
    executor = SingleThreadedExecutor()
    executor.add_node(planner)
    give_up = time.monotonic() + PATIENCE_S
    while not answers and time.monotonic() < give_up:
        executor.spin_once(timeout_sec=0.1)
    executor.shutdown()
    assert answers[0].error_code in ANSWERED


def test_on_text_may_ask_and_may_raise(memory: Memory, seen: int) -> None:
    nested: list[Any] = []

    def ask_again(text: str) -> None:
        if not nested:
            nested.append(memory.ask("never", answer_type=AnswerType.BINARY, timeout_s=PATIENCE_S))

    memory.ask("say a b c", timeout_s=PATIENCE_S, on_text=ask_again)
    assert nested[0].error_code == ErrorCode.NONE

    def fail(text: str) -> None:
        raise ZeroDivisionError("on purpose")

    with pytest.raises(ZeroDivisionError):
        memory.ask("say a b c", timeout_s=PATIENCE_S, on_text=fail)
    assert memory.ask("say so", timeout_s=PATIENCE_S).error_code == ErrorCode.NONE


def test_goals_canceled_at_any_instant_end_canceled(memory: Memory, seen: int, robot: Robot) -> None:
    memory.ask("say so", timeout_s=PATIENCE_S)  # they have met
    chance = random.Random(0)
    codes: list[ErrorCode] = []
    for _ in range(60):
        cancel = threading.Event()
        timer = threading.Timer(chance.choice([0.0, 0.0, chance.uniform(0.0, 0.05)]), cancel.set)
        timer.start()
        codes.append(memory.ask("hang", timeout_s=PATIENCE_S, cancel=cancel).error_code)
        timer.join()
    assert set(codes) == {ErrorCode.CANCELED}
    robot.wait(lambda: robot.count("questions", "open") == 0, PATIENCE_S, "no canceled question goes on")


def test_thirty_threads_ask_and_cancel_at_once(memory: Memory, seen: int, robot: Robot) -> None:
    """All goals, results and cancels pass through one action client, and no reply pushes out another."""
    memory.ask("say so", timeout_s=PATIENCE_S)  # they have met
    cancel = threading.Event()
    with ThreadPoolExecutor(30) as threads:
        answers = [threads.submit(memory.ask, "hang", timeout_s=PATIENCE_S, cancel=cancel) for _ in range(30)]
        robot.wait(lambda: robot.count("questions", "open") == 30, PATIENCE_S, "all questions are open")
        cancel.set()
        assert {answer.result().error_code for answer in answers} == {ErrorCode.CANCELED}


def test_a_cancel_right_behind_the_goal_is_not_lost(node: NodeProcess, seen: int, robot: Robot) -> None:
    """Goal and cancel are sent without a wait for the acceptance; the node may take them in any order."""
    from rclpy.action import ActionClient

    from salmonn_interfaces.action import Ask

    client = ActionClient(robot.node, Ask, "salmonn/ask", **ACTION_QOS)
    assert client.wait_for_server(PATIENCE_S)
    assert Memory(robot.node).state(PATIENCE_S) == "active"
    goal = Ask.Goal()
    goal.question.text = "hang"
    goal.question.timeout.sec = 100

    def is_known() -> bool:
        """Whether a goal and its cancel get replies: those to a client that the node does not know yet are lost."""
        sent = client.send_goal_async(goal)
        if not robot.becomes(sent.done, 5.0):
            return False
        return robot.becomes(sent.result().cancel_goal_async().done, 5.0)

    robot.wait(is_known, PATIENCE_S, "the node knows the client")
    ends = []
    for _ in range(30):  # at once; with rclpy's default depth of ten, some replies would overwrite each other
        sent = client.send_goal_async(goal)
        # In the executor's thread, as soon as the acceptance is there.
        sent.add_done_callback(lambda future: ends.append((future.result(), future.result().cancel_goal_async())))
    robot.wait(lambda: len(ends) == 30 and all(c.done() for _, c in ends), PATIENCE_S, "cancels are answered")
    assert all(len(canceled.result().goals_canceling) == 1 for _, canceled in ends)
    robot.wait(lambda: robot.count("questions", "open") == 0, PATIENCE_S, "no canceled question goes on")
    client.destroy()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"text": None}, "text"),
        ({"text": "half \ud83d"}, "text"),
        ({"before_ns": -30_000_000_000}, "before"),
        ({"after_ns": None}, "after"),
        ({"timeout_s": float("nan")}, "timeout"),
        ({"timeout_s": float("inf")}, "timeout"),
        ({"timeout_s": 1e10}, "timeout"),
        ({"timeout_s": 0.0}, "timeout"),
        ({"max_evidence": -1}, "max_evidence"),
        ({"sources": "front"}, "sources"),
        ({"choices": "red"}, "choices"),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit_are_named_at_once(planner: Node, arguments: dict[str, Any], named: str) -> None:
    memory = Memory(planner, "nobody")
    answer = memory.ask(**{"text": "where?", "timeout_s": PATIENCE_S, **arguments})
    assert answer.error_code == ErrorCode.INVALID_REQUEST
    assert answer.error_msg.startswith(named)
    if not arguments.keys() & {"choices", "max_evidence", "before_ns"}:
        watched = memory.watch(**{"text": "is it so?", "timeout_s": PATIENCE_S, **arguments})
        assert watched.answer.error_code == ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("server", ["", "/", "my robot/salmonn", "robot-1/salmonn", "/salmonn/", "a//b", None, "1a"])
def test_odd_names_of_the_node_are_refused(planner: Node, server: Any) -> None:
    with pytest.raises(ValueError, match="not the name of a ROS node"):
        Memory(planner, server)


def test_a_node_killed_and_started_again_is_asked_again(robot: Robot, tmp_path: Path) -> None:
    memory = Memory(robot.node, "phoenix")
    parameters = {"persistence": "false", "threads": "1", "max_new_tokens": "2"}
    for life in range(2):
        process = NodeProcess(tmp_path / f"{life}.log", parameters, name="phoenix")
        memory.startup(PATIENCE_S)
        assert memory.ask("say so", timeout_s=PATIENCE_S).error_code in ANSWERED, life
        process.process.send_signal(signal.SIGKILL)
        process.process.wait()


def test_a_watch_ends_when_the_node_was_killed_and_started_again(
    robot: Robot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("salmonn_node.client.memory_client.STILL_THERE_S", 0.5)
    memory = Memory(robot.node, "phoenix")
    ends: list[Watched] = []
    parameters = {"persistence": "false", "threads": "1", "max_new_tokens": "2"}

    def watch() -> None:
        ends.append(memory.watch("is it so?", timeout_s=PATIENCE_S))

    for life in range(2):
        process = NodeProcess(tmp_path / f"{life}.log", parameters, name="phoenix")
        memory.startup(PATIENCE_S)
        if life == 0:
            threading.Thread(target=watch, daemon=True).start()
            robot.wait(lambda: robot.value("questions", "watches", "phoenix") == "1", PATIENCE_S, "a watch is open")
            process.process.send_signal(signal.SIGKILL)
            process.process.wait()
    robot.wait(lambda: bool(ends), PATIENCE_S, "the watch ends")
    process.end()
    # If the new node takes longer than the discovery of the old one's end, the old one is missed first.
    assert ends[0].answer.error_code == ErrorCode.NOT_ACTIVE, ends[0].answer.error_msg
    assert any(words in ends[0].answer.error_msg for words in ("was restarted", "is it running?"))


@pytest.mark.full
@pytest.mark.parametrize("by_action", [False, True], ids=["service", "action"])
def test_every_short_question_gets_a_reply_after_the_node_was_stopped_and_continued(
    robot: Robot, tmp_path: Path, by_action: bool
) -> None:
    """What is sent to a stopped process may be lost; nothing later may wait behind it."""
    parameters = {"persistence": "false", "threads": "1", "max_new_tokens": "2"}
    process = NodeProcess(tmp_path / "log", parameters, name="stopped")
    memories = [Memory(robot.node, "stopped") for _ in range(3)]
    memories[0].startup(PATIENCE_S)
    end, thawed, calls = threading.Event(), [time.monotonic()], [0]
    silent: list[tuple[float, str]] = []

    def plan(memory: Memory) -> None:
        while not end.is_set():
            began, stops = time.monotonic(), len(thawed)
            answer = memory.ask("say so", timeout_s=0.3, cancel=threading.Event() if by_action else None)
            free = thawed[-1] < began and len(thawed) == stops and "nothing was sent" not in answer.error_msg
            if free and answer.error_code == ErrorCode.TIMEOUT and answer.error_msg.startswith("no reply"):
                silent.append((round(began - thawed[-1], 2), answer.error_msg))
            calls[0] += 1
            end.wait(0.05)

    planners = [threading.Thread(target=plan, args=(memory,)) for memory in memories]
    for planner in planners:
        planner.start()

    def more_calls(number: int) -> None:
        before = calls[0]
        robot.wait(lambda: calls[0] >= before + number, PATIENCE_S, "the planners ask")

    for _ in range(12):
        more_calls(30)
        thawed.append(float("inf"))
        process.process.send_signal(signal.SIGSTOP)
        more_calls(3)
        process.process.send_signal(signal.SIGCONT)
        thawed.append(time.monotonic())
    more_calls(30)
    end.set()
    for planner in planners:
        planner.join(PATIENCE_S)
    process.end()
    assert not silent


def test_a_memory_that_nobody_refers_to_leaves_no_thread(planner: Node) -> None:
    def clients() -> int:
        gc.collect()  # what a test that failed left
        return sum(thread.name == "memory-client" for thread in threading.enumerate())

    before = clients()
    with Memory(planner, "nobody") as memory:
        assert memory.state(0.1) == "absent"
        assert clients() == before + 1
    assert clients() == before
    assert memory.ask("where?", timeout_s=0.1).error_code == ErrorCode.NOT_ACTIVE
    memory = Memory(planner, "nobody")
    del memory
    assert clients() == before


PROGRAM = """
import threading, rclpy
from salmonn_node.client import Memory
rclpy.init()
memory = Memory(rclpy.create_node("hasty"), "nobody")
threading.Timer(0.5, rclpy.shutdown).start()
print(memory.ask("where?", timeout_s=100.0).error_code.name)
rclpy.init()
kept = Memory(rclpy.create_node("hasty"), "nobody")
"""


def test_rclpy_may_be_shut_down_meanwhile_or_never() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, cwd=ROOT, env=_environment()
    )
    assert done.stdout.split() == ["NOT_ACTIVE"], done.stderr
    assert done.returncode == 0, done.stderr
