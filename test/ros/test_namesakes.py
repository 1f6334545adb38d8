"""Two nodes of the same full name in one graph warn of each other, and stop when one is gone; others are none of it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile

from .harness import PATIENCE_S, NodeProcess, Robot

pytestmark = pytest.mark.ros

PARAMETERS = {"persistence": "false", "diagnostics_period_s": "0.1"}


@pytest.fixture
def told(robot: Robot) -> Iterator[list[tuple[int, str]]]:
    """Level and message of each status of a node called `twin`, whoever published it; emptied at will."""
    seen: list[tuple[int, str]] = []

    def note(array: DiagnosticArray) -> None:
        seen.extend((ord(s.level), s.message) for s in array.status if s.name == "twin: node")

    heard = robot.node.create_subscription(DiagnosticArray, "/diagnostics", note, QoSProfile(depth=100))
    yield seen
    robot.node.destroy_subscription(heard)


def test_two_nodes_of_one_name_warn_until_one_is_gone(robot: Robot, told: list, tmp_path: Path) -> None:
    first = NodeProcess(tmp_path / "first.log", PARAMETERS, name="twin")
    robot.wait(lambda: len(told) >= 3, PATIENCE_S, "the first is there")
    other = NodeProcess(tmp_path / "other.log", PARAMETERS, name="twin_of_none")
    robot.wait(lambda: bool(robot.value("node", "message", "twin_of_none")), PATIENCE_S, "another name is there")
    assert set(told) == {(0, "unconfigured")}
    second = NodeProcess(tmp_path / "second.log", PARAMETERS, name="twin")
    robot.wait(lambda: told[-1][0] == 1, PATIENCE_S, "they warn")
    assert "another node has this node's name, /twin" in told[-1][1]
    robot.wait(
        lambda: all("this node's name, /twin" in p.log.read_text() for p in (first, second)), PATIENCE_S, "both logs"
    )
    assert second.end(signal.SIGINT) == 0
    robot.wait(lambda: told[-3:] == [(0, "unconfigured")] * 3, PATIENCE_S, "the warning ends")
    assert "no other node has this node's name any more" in first.log.read_text()
    assert first.end(signal.SIGINT) == 0
    assert other.end(signal.SIGINT) == 0
    assert "this node's name" not in other.log.read_text()
