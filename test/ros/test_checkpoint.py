"""Which weights a node runs on, and whether they have learned anything, is told wherever it matters."""

from __future__ import annotations

from pathlib import Path

import pytest

from salmonn_interfaces.msg import MemoryStatus
from salmonn_node.client import Memory
from salmonn_node.client.qos import LATCHED
from salmonn_node.model.checkpoint import load, save
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.stream.answers import ErrorCode

from .harness import PATIENCE_S, NodeProcess, Robot

pytestmark = pytest.mark.ros
WARNING = "untrained weights, answers mean nothing"


def test_the_checkpoint_that_comes_along_is_named(node: NodeProcess, robot: Robot, memory: Memory, seen: int) -> None:
    packaged = load().checkpoint
    robot.wait(lambda: robot.status is not None, PATIENCE_S, "a memory status")
    assert robot.status is not None
    assert (robot.status.checkpoint_id, robot.status.checkpoint_trained) == (packaged.id, packaged.trained)
    assert robot.status.reader == "internal: pictures stay in this process"
    robot.wait(lambda: robot.value("memory", "checkpoint") == packaged.id, PATIENCE_S, "diagnostics name it")
    answer = memory.ask("Have you seen a red ball?", timeout_s=PATIENCE_S)
    assert answer.error_code == ErrorCode.NONE, answer
    told = [
        WARNING in node.log.read_text(),
        "untrained" in robot.value("memory", "message"),
        "untrained" in answer.text,
    ]
    assert told == [not packaged.trained] * 3


def test_untrained_weights_are_told_by_status_diagnostics_log_and_answers(robot: Robot, tmp_path: Path) -> None:
    blank = VideoSalmonnS.tiny(seed=3)
    save(blank, tmp_path / "blank")
    arguments = {
        "checkpoint": str(tmp_path / "blank"),
        "persistence": "false",
        "use_sim_time": "true",
        "image_reliability": "reliable",
        "diagnostics_period_s": "0.1",
        "max_new_tokens": "2",
        "threads": "1",
    }
    heard: list[MemoryStatus] = []
    robot.node.create_subscription(MemoryStatus, "blank/memory_status", heard.append, LATCHED)
    process = NodeProcess(tmp_path / "node.log", arguments, name="blank", scripted=False)
    try:
        memory = Memory(robot.node, "blank")
        memory.startup(PATIENCE_S)

        def taken() -> bool:
            robot.images.publish(robot.image(robot.step()))
            return int(robot.value("memory", "frames", "blank") or 0) > 0

        robot.wait(taken, PATIENCE_S, "an image is taken")
        answer = memory.ask("Have you seen a red ball?", timeout_s=PATIENCE_S)
        assert answer.error_code == ErrorCode.NONE, answer
        assert answer.text.startswith("[untrained weights] ")
        robot.wait(lambda: bool(heard), PATIENCE_S, "a memory status")
        assert heard[-1].checkpoint_id == load(str(tmp_path / "blank")).checkpoint.id
        assert not heard[-1].checkpoint_trained
        message = "untrained weights: answers mean nothing"
        robot.wait(lambda: robot.value("memory", "message", "blank") == message, PATIENCE_S, "diagnostics tell it")
        assert WARNING in process.log.read_text()
    finally:
        process.end()
