"""Nothing that a caller asks of the lifecycle ends the process: what does not fit is refused, the node lives on."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters

from salmonn_node.client import ErrorCode, Memory

from .harness import PATIENCE_S, NodeProcess, Robot, _environment

pytestmark = pytest.mark.ros

# Ids that the state machine takes, or does not know.
SUCCEEDED, FAILED, DESTROY, UNKNOWN = 10, 11, Transition.TRANSITION_DESTROY, 77
CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE = (
    Transition.TRANSITION_CONFIGURE,
    Transition.TRANSITION_CLEANUP,
    Transition.TRANSITION_ACTIVATE,
    Transition.TRANSITION_DEACTIVATE,
)


@pytest.fixture(scope="module")
def own(robot: Robot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node of this file's own, unconfigured."""
    folder: Path = tmp_path_factory.mktemp("transitions")
    parameters = {"persistence": "false", "diagnostics_period_s": "0.1", "threads": "1", "max_new_tokens": "2"}
    process = NodeProcess(folder / "node.log", parameters, name="asked")
    robot.wait(lambda: Memory(robot.node, "asked").state(5.0) != "absent", PATIENCE_S, "the node is there")
    yield process
    assert process.end(signal.SIGINT) == 0


def ask_for(robot: Robot, transition: int, label: str = "") -> bool:
    request = Transition(id=transition, label=label)
    return bool(robot.call(ChangeState, "asked/change_state", transition=request).success)


def test_what_does_not_fit_the_state_is_refused(own: NodeProcess, robot: Robot) -> None:
    memory = Memory(robot.node, "asked")
    everything = [*range(10), 10, 11, 12, 20, 30, 40, 50, 60, 61, 62, UNKNOWN, 255]
    for state, fitting in (
        ("unconfigured", {CONFIGURE, Transition.TRANSITION_UNCONFIGURED_SHUTDOWN}),
        ("inactive", {CLEANUP, ACTIVATE, Transition.TRANSITION_INACTIVE_SHUTDOWN}),
        ("active", {DEACTIVATE, Transition.TRANSITION_ACTIVE_SHUTDOWN}),
    ):
        assert memory.state(PATIENCE_S) == state
        for transition in everything:
            if transition not in fitting:
                assert not ask_for(robot, transition), (state, transition)
        assert not ask_for(robot, 0, "transition_success")
        assert not ask_for(robot, min(fitting), "no such label"), "a label counts before an id"
        assert memory.state(PATIENCE_S) == state
        if state != "active":
            assert ask_for(robot, CONFIGURE if state == "unconfigured" else ACTIVATE)
    assert own.alive()
    assert memory.ask("say so", timeout_s=PATIENCE_S).error_code in (ErrorCode.NONE, ErrorCode.EMPTY_MEMORY)


def test_planners_that_start_it_at_once_all_find_it_active(own: NodeProcess, robot: Robot) -> None:
    memory = Memory(robot.node, "asked")
    if memory.state(PATIENCE_S) == "active":
        assert ask_for(robot, DEACTIVATE)
    if memory.state(PATIENCE_S) == "inactive":
        assert ask_for(robot, 0, "cleanup")
    assert memory.state(PATIENCE_S) == "unconfigured"
    problems: list[BaseException] = []

    def start() -> None:
        try:
            Memory(robot.node, "asked").startup(PATIENCE_S)
        except BaseException as error:
            problems.append(error)

    planners = [threading.Thread(target=start) for _ in range(5)]
    for planner in planners:
        planner.start()
    for planner in planners:
        planner.join(2 * PATIENCE_S)
    assert not problems
    assert memory.state(PATIENCE_S) == "active"
    assert own.alive()


def test_a_flood_of_transitions_from_many_threads_leaves_a_node_that_works(own: NodeProcess, robot: Robot) -> None:
    client = robot.node.create_client(ChangeState, "asked/change_state")
    assert client.wait_for_service(PATIENCE_S)
    Memory(robot.node, "asked").startup(PATIENCE_S)
    deadline = time.monotonic() + PATIENCE_S
    for round_ in range(8):
        wanted = (CONFIGURE, ACTIVATE, DEACTIVATE, CLEANUP, SUCCEEDED, FAILED, DESTROY, UNKNOWN)
        futures = [client.call_async(ChangeState.Request(transition=Transition(id=i))) for i in wanted]
        robot.wait(lambda futures=futures: all(f.done() for f in futures), PATIENCE_S, f"round {round_} is answered")
        assert time.monotonic() < deadline + PATIENCE_S
    robot.node.destroy_client(client)
    memory = Memory(robot.node, "asked")
    memory.startup(PATIENCE_S)
    assert own.alive()
    assert memory.ask("say so", timeout_s=PATIENCE_S).error_code in (ErrorCode.NONE, ErrorCode.EMPTY_MEMORY)


def test_a_service_of_rclpy_that_raises_still_replies(own: NodeProcess, robot: Robot) -> None:
    odd = Parameter(name="default_timeout_s", value=ParameterValue(type=77))
    reply = robot.call(SetParameters, "asked/set_parameters", parameters=[odd])
    assert not any(result.successful for result in reply.results)
    assert own.alive()
    fine = Parameter(name="default_timeout_s", value=ParameterValue(type=3, double_value=4.0))
    assert robot.call(SetParameters, "asked/set_parameters", parameters=[fine]).results[0].successful


ENDING = """
import sys, threading, time, rclpy
from salmonn_node.ros.node import main

def end_it():
    while not any(thread.name == "executor" for thread in threading.enumerate()):
        time.sleep(0.01)
    rclpy.shutdown()

threading.Thread(target=end_it, daemon=True).start()
sys.exit(main(sys.argv))
"""


def test_an_end_that_nobody_asked_for_is_no_exit_status_0(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ENDING, "--ros-args", "-p", "persistence:=false", "-r", "__node:=ending"]
    assert subprocess.run(command, timeout=PATIENCE_S, cwd=tmp_path, env=_environment()).returncode == 1
