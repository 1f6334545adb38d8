"""The memory's services over real ROS: save, describe, load, forget, and a node that comes back with what it knew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lifecycle_msgs.msg import Transition

from salmonn_interfaces.srv import ClearMemory, ForgetInterval, GetMemoryInfo, LoadMemory, SaveMemory
from salmonn_node.client import Memory
from salmonn_node.messages.base import time_message
from salmonn_node.stream.answers import ErrorCode

from .harness import PATIENCE_S, SECOND_NS, TYPES, NodeProcess, Robot

pytestmark = pytest.mark.ros

SERVICES = {
    "clear_memory": ClearMemory,
    "save_memory": SaveMemory,
    "load_memory": LoadMemory,
    "forget_interval": ForgetInterval,
    "get_memory_info": GetMemoryInfo,
}


def call(robot: Robot, service: str, **fields: Any) -> Any:
    return robot.call(SERVICES[service], f"salmonn/{service}", **fields)


def show(robot: Robot, seconds: int) -> int:
    """Let the robot see one image a second; gives the stamp of the first."""
    first = robot.now_ns + SECOND_NS
    frames = robot.steady("memory", "frames")
    for _ in range(seconds):
        robot.images.publish(robot.image(robot.step()))
    robot.wait(lambda: robot.count("memory", "frames") == frames + seconds, PATIENCE_S, "all images are taken")
    return first


def test_save_describe_load_forget(robot: Robot, node: NodeProcess, memory: Memory) -> None:
    first = show(robot, 6)
    saved = call(robot, "save_memory", name="kitchen")
    assert (saved.error_code, saved.name) == (0, "kitchen"), saved.error_msg
    assert saved.size_bytes > 0
    assert call(robot, "save_memory", name="kitchen").error_code == SaveMemory.Response.EXISTS
    assert call(robot, "save_memory", name="kitchen", overwrite=True).error_code == 0
    info = call(robot, "get_memory_info", name="kitchen")
    assert info.error_code == 0
    assert {"default", "kitchen"} <= set(info.stored)
    assert info.snapshots >= 1
    for name in ("../kitchen", "/etc/passwd", "a" * 65, "a/b"):
        assert call(robot, "save_memory", name=name).error_code == SaveMemory.Response.INVALID_NAME
        assert call(robot, "load_memory", name=name).error_code == LoadMemory.Response.INVALID_NAME
        assert call(robot, "get_memory_info", name=name).error_code == GetMemoryInfo.Response.INVALID_NAME
    assert call(robot, "get_memory_info", name="attic").error_code == GetMemoryInfo.Response.NOT_FOUND

    tokens = robot.steady("memory", "frames")
    interval = {"start": time_message(TYPES, first), "end": time_message(TYPES, first + 2 * SECOND_NS)}
    forgotten = call(robot, "forget_interval", **interval)
    assert forgotten.error_code == 0, forgotten.error_msg
    assert forgotten.tokens_forgotten > 0
    assert "kitchen" in forgotten.error_msg, "the copy that still holds the interval is named"
    backwards = {"start": interval["end"], "end": interval["start"]}
    assert call(robot, "forget_interval", **backwards).error_code == ForgetInterval.Response.INVALID_INTERVAL
    gone = memory.ask("say so", before_ns=first + 2 * SECOND_NS, after_ns=first, timeout_s=PATIENCE_S)
    assert gone.error_code == ErrorCode.EMPTY_MEMORY

    assert call(robot, "load_memory", name="kitchen").error_code == LoadMemory.Response.WRONG_STATE
    assert memory.change_state(Transition.TRANSITION_DEACTIVATE, PATIENCE_S)
    assert call(robot, "load_memory", name="attic").error_code == LoadMemory.Response.NOT_FOUND
    loaded = call(robot, "load_memory", name="kitchen")
    assert loaded.error_code == 0, loaded.error_msg
    assert loaded.status.frames == tokens
    memory.startup(PATIENCE_S)
    robot.wait(robot.is_heard, PATIENCE_S, "the node subscribes again")
    found = memory.ask("say so", before_ns=first + 2 * SECOND_NS, after_ns=first, timeout_s=PATIENCE_S)
    assert found.error_code == ErrorCode.NONE, found
    assert memory.change_state(Transition.TRANSITION_DEACTIVATE, PATIENCE_S)
    assert call(robot, "load_memory", name="default").error_code == 0
    memory.startup(PATIENCE_S)
    robot.wait(robot.is_heard, PATIENCE_S, "the node subscribes again")


def test_cleanup_and_configure_bring_the_memory_back(robot: Robot, node: NodeProcess, memory: Memory) -> None:
    first = show(robot, 3)
    for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
        assert memory.change_state(transition, PATIENCE_S)
    memory.startup(PATIENCE_S)
    robot.wait(robot.is_heard, PATIENCE_S, "the node subscribes again")
    answer = memory.ask("say so", after_ns=first - 1_500_000_000, timeout_s=PATIENCE_S)
    assert answer.error_code == ErrorCode.NONE, answer
    assert answer.last_observation_ns == robot.now_ns


def test_two_nodes_never_share_a_memory(robot: Robot, node: NodeProcess, tmp_path: Path) -> None:
    from rclpy.lifecycle import TransitionCallbackReturn
    from rclpy.parameter import Parameter

    from salmonn_node.ros.memory_node import MemoryNode

    shared = [Parameter("memory_directory", value=str(node.folder / "memories")), Parameter("threads", value=1)]
    second = MemoryNode("second", parameter_overrides=shared)
    try:
        assert second.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert "in use" in second._problem
    finally:
        second.destroy_node()
