"""The node in every lifecycle state, with wrong parameters, and when it is told to go in the middle of work."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lifecycle_msgs.msg import Transition
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from salmonn_node.client import Memory
from salmonn_node.ros.memory_node import MemoryNode
from salmonn_node.runtime.settings import Settings
from salmonn_node.stream.answers import Answer, ErrorCode

from .harness import PATIENCE_S, NodeProcess, Robot

pytestmark = pytest.mark.ros


def never(settings: Settings) -> Any:
    raise AssertionError("the backend was built from wrong parameters")


@pytest.fixture
def make_node(robot: Robot) -> Iterator[Any]:
    """Nodes in this process, spun by the robot's executor, for what needs no network."""
    made: list[MemoryNode] = []

    def make(name: str, **values: Any) -> MemoryNode:
        overrides = [Parameter(key.replace("__", "."), value=value) for key, value in values.items()]
        overrides.append(Parameter("diagnostics_period_s", value=0.1))
        made.append(MemoryNode(name, build=never, parameter_overrides=overrides))
        robot.executor.add_node(made[-1])
        return made[-1]

    yield make
    for node in made:
        robot.executor.remove_node(node)
        node.destroy_node()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"image_transport": "smoke_signals"}, "image_transport must be one of raw, compressed"),
        ({"cameras": ["front", "front"]}, "must differ"),
        ({"cameras": ["../etc"]}, "letters"),
        ({"memory_name": "../../etc/passwd"}, "memory_name"),
        ({"image_depth": 100_000}, "image_depth"),
        ({"frame_rate_hz": -1.0}, "frame_rate_hz"),
        ({"frame_rate_hz": "fast"}, "frame_rate_hz"),
        ({"audio_type": "std_msgs/msg/String"}, "audio_type"),
        ({"camera__mount": [1.0, 2.0]}, "camera.mount needs 6 numbers"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_wrong_parameter_is_named_and_the_node_lives(
    make_node: Any, robot: Robot, values: dict[str, Any], named: str
) -> None:
    node = make_node("misconfigured", **values)
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    robot.wait(
        lambda: named in robot.value("node", "message", "misconfigured"), PATIENCE_S, f"diagnostics name {named}"
    )
    memory = Memory(robot.node, "misconfigured")
    assert memory.state(PATIENCE_S) == "unconfigured"
    assert memory.ask("where?", timeout_s=PATIENCE_S).error_code == ErrorCode.NOT_ACTIVE


def test_wrong_value_while_running_is_refused(make_node: Any) -> None:
    node = make_node("running")
    refused = node.set_parameters([Parameter("default_timeout_s", value=-1.0)])[0]
    assert not refused.successful
    assert node.set_parameters([Parameter("default_timeout_s", value=2.0)])[0].successful
    assert not node.set_parameters([Parameter("cameras", value=["other"])])[0].successful


def test_a_query_in_every_lifecycle_state(node: NodeProcess, memory: Memory, robot: Robot) -> None:
    def ask() -> Answer:
        return memory.ask("say so", timeout_s=PATIENCE_S)

    seen = {"active": ask().error_code}
    for transition, state in (
        (Transition.TRANSITION_DEACTIVATE, "inactive"),
        (Transition.TRANSITION_CLEANUP, "unconfigured"),
    ):
        assert memory.change_state(transition, PATIENCE_S)
        assert memory.state(PATIENCE_S) == state
        answer = ask()
        assert state in answer.error_msg
        seen[state] = answer.error_code
    memory.startup(PATIENCE_S)
    robot.wait(robot.is_heard, PATIENCE_S, "the node subscribes again")
    assert seen.pop("active") in (ErrorCode.NONE, ErrorCode.EMPTY_MEMORY)
    assert set(seen.values()) == {ErrorCode.NOT_ACTIVE}
    assert ask().error_code in (ErrorCode.NONE, ErrorCode.EMPTY_MEMORY)


def test_a_query_after_shutdown_is_not_active(make_node: Any, robot: Robot) -> None:
    node = make_node("finished")
    assert node.trigger_shutdown() == TransitionCallbackReturn.SUCCESS
    memory = Memory(robot.node, "finished")
    assert memory.state(PATIENCE_S) == "finalized"
    answer = memory.ask("where?", timeout_s=PATIENCE_S)
    assert answer.error_code == ErrorCode.NOT_ACTIVE
    assert "finalized" in answer.error_msg


def test_memory_services_say_why_not(node: NodeProcess, robot: Robot, make_node: Any) -> None:
    from salmonn_interfaces.srv import ClearMemory, GetMemoryInfo

    refused = robot.call(ClearMemory, "salmonn/clear_memory")
    assert refused.error_code == ClearMemory.Response.NOT_CONFIRMED
    info = robot.call(GetMemoryInfo, "salmonn/get_memory_info")
    assert info.error_code == 0
    assert info.status.memory_id.startswith("default")
    assert info.status.visual_budget > 0
    make_node("idle")
    refused = robot.call(ClearMemory, "idle/clear_memory", confirm=True)
    assert refused.error_code == ClearMemory.Response.WRONG_STATE


def test_signals_during_a_query(robot: Robot, tmp_path: Path) -> None:
    """Two nodes at once, one for each signal: the open question is answered CANCELED, the process ends with 0."""
    numbers = {"interrupted": signal.SIGINT, "terminated": signal.SIGTERM}
    nodes = {}
    for name in numbers:
        parameters = {"memory_directory": str(tmp_path / name), "diagnostics_period_s": "0.1", "threads": "1"}
        nodes[name] = NodeProcess(tmp_path / f"{name}.log", parameters, name=name)
    try:
        answers: dict[str, Answer] = {}

        def ask(name: str) -> None:
            # With `before` ahead of everything the question waits, whatever is in memory.
            ahead = 4_000_000_000 * 1_000_000_000 // 2
            answers[name] = Memory(robot.node, name).ask("hang", before_ns=ahead, timeout_s=60.0)

        for name, number in numbers.items():
            Memory(robot.node, name).startup(PATIENCE_S)
            thread = threading.Thread(target=ask, args=(name,))
            thread.start()
            robot.wait(
                lambda name=name: robot.value("questions", "open", name) == "1", PATIENCE_S, "the question is open"
            )
            assert nodes[name].end(number) == 0
            thread.join(PATIENCE_S)
            assert answers[name].error_code == ErrorCode.CANCELED, answers
    finally:
        for process in nodes.values():
            if process.alive():
                process.process.kill()
