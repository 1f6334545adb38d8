"""Encoders in the real node: what runs and why is told, a required engine is required, a broken GPU is loud."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from salmonn_node.client import Memory

from .harness import PATIENCE_S, NodeProcess, Robot

pytestmark = pytest.mark.ros
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="not shown here: there is a GPU")


@no_gpu
def test_the_fallback_is_told_in_status_diagnostics_and_log(node: NodeProcess, robot: Robot) -> None:
    robot.wait(lambda: robot.status is not None, PATIENCE_S, "a memory status")
    status = robot.status
    assert status is not None
    for backend, reason in (
        (status.vision_backend, status.vision_backend_reason),
        (status.audio_backend, status.audio_backend_reason),
    ):
        assert backend == "torch"
        assert reason.startswith("NO_TRT: ")
    robot.wait(lambda: robot.value("memory", "vision_backend").startswith("torch (NO_TRT"), PATIENCE_S, "diagnostics")
    log = node.log.read_text()
    assert "vision and audio encoders: torch (NO_TRT" in log
    assert log.count("NO_TRT") == 1


@no_gpu
def test_a_required_engine_fails_configure_and_names_the_reason(robot: Robot, tmp_path: Path) -> None:
    arguments = {"require_engine": "true", "memory_directory": str(tmp_path), "diagnostics_period_s": "0.1"}
    process = NodeProcess(tmp_path / "node.log", arguments, name="strict", scripted=False)
    try:
        memory = Memory(robot.node, "strict")
        assert memory.state(PATIENCE_S) == "unconfigured", process.tail()
        with pytest.raises(RuntimeError):
            memory.startup(PATIENCE_S)
        robot.wait(
            lambda: "NO_TRT" in robot.value("node", "message", "strict"), PATIENCE_S, "diagnostics name the reason"
        )
        assert memory.state(PATIENCE_S) == "unconfigured"
        assert "cannot configure: EngineError: NO_TRT" in (tmp_path / "node.log").read_text()
    finally:
        process.end()


def test_a_broken_gpu_takes_the_node_through_its_error_state(robot: Robot, tmp_path: Path) -> None:
    arguments = {
        "memory_directory": str(tmp_path / "memories"),
        "use_sim_time": "true",
        "image_reliability": "reliable",
        "diagnostics_period_s": "0.1",
        "threads": "1",
    }
    process = NodeProcess(tmp_path / "node.log", arguments, name="broken", script="failing_node.py")
    try:
        memory = Memory(robot.node, "broken")
        memory.startup(PATIENCE_S)

        def gone() -> bool:
            robot.images.publish(robot.image(robot.step()))
            return "illegal memory access" in robot.value("node", "message", "broken")

        robot.wait(gone, PATIENCE_S, "diagnostics tell of the broken GPU")
        robot.wait(lambda: memory.state(PATIENCE_S) == "unconfigured", PATIENCE_S, "the node is unconfigured")
        assert process.alive(), "the node lives and can be configured again"
        text = process.log.read_text()
        assert "the device failed, no more observations are processed" in text
        assert "CUDA error: an illegal memory access was encountered" in text
    finally:
        process.end()
