"""A node that is held up, or whose packets are lost: each call says what became of it, and none runs on for nobody."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import rclpy
from builtin_interfaces.msg import Duration
from lifecycle_msgs.srv import GetState
from rclpy.action import ActionServer
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from salmonn_interfaces.action import Ask
from salmonn_interfaces.srv import Query
from salmonn_node.client import ErrorCode, Memory
from salmonn_node.ros.deferred import DeferredReply, create_deferred_service

from .harness import PATIENCE_S, NodeProcess, Robot

pytestmark = pytest.mark.ros


@pytest.fixture
def frozen(node: NodeProcess, robot: Robot) -> Iterator[None]:
    """The node is stopped until the test ends."""
    assert Memory(robot.node).state(PATIENCE_S) == "active"
    node.process.send_signal(signal.SIGSTOP)
    yield
    node.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("action", [False, True], ids=["service", "action"])
def test_what_does_not_reach_the_node_is_not_sent_and_says_so(robot: Robot, frozen: None, action: bool) -> None:
    with Memory(robot.node) as newcomer:  # the node has not discovered it
        answer = newcomer.ask("hang", timeout_s=0.5, cancel=threading.Event() if action else None)
    assert answer.error_code == ErrorCode.NOT_ACTIVE
    assert "nothing was sent" in answer.error_msg


def test_a_watch_that_is_accepted_too_late_is_canceled(node: NodeProcess, robot: Robot, seen: int) -> None:
    with Memory(robot.node) as memory:
        assert memory.ask("say so", timeout_s=PATIENCE_S).error_code == ErrorCode.NONE  # they have met
        robot.wait(lambda: robot.count("questions", "watches") == 0, PATIENCE_S, "no watch is open")
        node.process.send_signal(signal.SIGSTOP)
        try:
            watched = memory.watch("never", timeout_s=0.3)
        finally:
            node.process.send_signal(signal.SIGCONT)
        assert watched.answer.error_code == ErrorCode.TIMEOUT
        assert watched.answer.error_msg.startswith("no reply")
        # The node takes the goal now, and then this one.
        cancel = threading.Event()
        end = lambda *_: cancel.set()  # noqa: E731
        later = memory.watch("never", after_ns=1, on_evaluation=end, cancel=cancel, timeout_s=PATIENCE_S)
        assert later.answer.error_code == ErrorCode.CANCELED
        robot.wait(lambda: robot.count("questions", "watches") == 0, PATIENCE_S, "the late watch has ended")


class LosesTheFirstResult(ActionServer):
    """Takes the first request for a result and never replies, as when a packet is lost."""

    asked = 0

    async def _execute_get_result_request(self, request: object) -> None:
        self.asked += 1
        if self.asked > 1:
            await super()._execute_get_result_request(request)


class LosesTheFirstGoal(ActionServer):
    """Takes the first goal and never says so, as when a packet is lost."""

    ids: tuple[bytes, ...] = ()

    async def _execute_goal_request(self, request: tuple[object, Any]) -> None:
        self.ids += (bytes(request[1].goal_id.uuid),)
        if len(self.ids) > 1:
            await super()._execute_goal_request(request)


@contextmanager
def forgetful(server_type: type[ActionServer]) -> Iterator[ActionServer]:
    """A node that answers every question with "red", through such a server."""
    node = rclpy.create_node("forgetful")

    def answer(goal: object) -> Ask.Result:
        goal.succeed()  # type: ignore[attr-defined]
        result = Ask.Result()
        result.answer.text = "red"
        return result

    server = server_type(node, Ask, "~/ask", answer)
    node.create_service(GetState, "~/get_state", lambda request, response: response)
    with spinning(node):
        yield server
        server.destroy()


@contextmanager
def spinning(node: Node) -> Iterator[None]:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin)
    thread.start()
    try:
        yield
    finally:
        executor.shutdown()
        thread.join(PATIENCE_S)
        node.destroy_node()


def test_a_result_that_is_overdue_is_requested_again(robot: Robot) -> None:
    with forgetful(LosesTheFirstResult) as server, Memory(robot.node, "forgetful") as memory:
        assert memory.state(PATIENCE_S) != "absent"
        for _ in range(20):  # on a loaded machine the node may not be reached at once
            server.asked = 0
            told = memory.ask("where?", timeout_s=2.0, cancel=threading.Event())
            if told.error_code == ErrorCode.NONE:
                break
    assert (told.text, told.error_code) == ("red", ErrorCode.NONE)
    assert server.asked > 1


def test_a_goal_that_is_not_accepted_is_sent_again_under_its_id(robot: Robot) -> None:
    with forgetful(LosesTheFirstGoal) as server, Memory(robot.node, "forgetful") as memory:
        assert memory.state(PATIENCE_S) != "absent"
        told = memory.ask("where?", timeout_s=PATIENCE_S, cancel=threading.Event())
    assert (told.text, told.error_code) == ("red", ErrorCode.NONE)
    assert len(server.ids) > 1
    assert len(set(server.ids)) == 1


def test_an_overdue_reply_of_the_service_is_asked_for_again(robot: Robot) -> None:
    node = rclpy.create_node("forgetful")
    timeouts: list[Duration] = []

    def take(request: Query.Request) -> DeferredReply:
        timeouts.append(request.question.timeout)
        deferred = DeferredReply()
        if len(timeouts) > 1:  # the first reply is lost
            response = Query.Response()
            response.answer.error_code = int(ErrorCode.TIMEOUT)
            response.answer.error_msg = "too late"
            deferred.set(response)
        return deferred

    create_deferred_service(node, Query, "~/query", take, ReentrantCallbackGroup())
    node.create_service(GetState, "~/get_state", lambda request, response: response)
    with spinning(node), Memory(robot.node, "forgetful") as memory:
        assert memory.state(PATIENCE_S) != "absent"
        for _ in range(20):  # on a loaded machine the node may not be reached at once
            timeouts.clear()
            told = memory.ask("where?", timeout_s=1.0)
            if told.error_msg == "too late":
                break
    assert told.error_code == ErrorCode.TIMEOUT
    assert told.error_msg == "too late"
    assert timeouts[1].sec == 0
    assert timeouts[1].nanosec <= 1_000_000, "the reminder makes no work"
