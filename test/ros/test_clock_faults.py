"""A camera whose clock is off, over real ROS: named on /diagnostics with its offset; sound and poses go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sensor_msgs.msg import Image

from salmonn_node.client import Memory

from .harness import PATIENCE_S, SECOND_NS, NodeProcess, Robot

pytestmark = pytest.mark.ros

# If the camera's first image is the first message of all, a session begins with it. The other sources then move the
# session, and the camera's stamps are those of the old one.
REFUSED = ("dropped.stamp_far_ahead", "dropped.stamp_far_behind", "dropped.stamp_of_old_session")
# what is wrong: the camera's stamp at a time and a tick, what is counted (any of these), what is said
FAULTS: dict[str, tuple[Callable[[int, int], int], tuple[str, ...], str]] = {
    "20 s ahead": (lambda t, tick: t + 20 * SECOND_NS, REFUSED, "s ahead of the other sources"),
    "restarts": (lambda t, tick: (5 + tick % 8) * SECOND_NS, REFUSED, "behind the other sources"),
    "4 s behind": (lambda t, tick: t - 4 * SECOND_NS, ("queued",), "odd.stamp_offset_s: "),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_camera_whose_clock_is_off_is_named_and_all_else_goes_on(robot: Robot, tmp_path: Path, kind: str) -> None:
    stamp_of, counts, said = FAULTS[kind]
    arguments = {
        "use_sim_time": "true",
        "cameras": "[odd]",
        "image_reliability": "reliable",
        "audio_type": "salmonn_interfaces/msg/AudioChunk",
        "diagnostics_period_s": "0.1",
        "memory_directory": str(tmp_path / "memories"),
        "threads": "1",
    }
    name = f"clock_{list(FAULTS).index(kind)}"
    images = robot.node.create_publisher(Image, "odd/image", 50)
    process = NodeProcess(tmp_path / "node.log", arguments, name=name)

    def value(source: str, key: str) -> str:
        return robot.value(f"input {source}", key, node=name)

    def told() -> bool:
        others = min(int(value(source, "queued") or 0) for source in ("microphone", "pose"))
        counted = any(int(value("odd", count) or 0) for count in counts)
        return said in value("odd", "clock") and counted and others >= 40

    try:
        Memory(robot.node, name).startup(PATIENCE_S)
        deadline = time.monotonic() + PATIENCE_S
        tick = 0
        while not told():
            shown = [value("odd", key) for key in ("clock", "message", *counts)]
            assert time.monotonic() < deadline, f"after {tick} messages of each source diagnostics show {shown}"
            t = robot.step(0.1)
            robot.sounds.publish(robot.sound(t))
            robot.poses.publish(robot.odometry(t))
            images.publish(robot.image(stamp_of(t, tick)))
            tick += 1
            arrays = robot.arrays
            robot.wait(lambda before=arrays: robot.arrays > before, PATIENCE_S, "diagnostics come")
        assert value("odd", "level") == "1", "a warning"
        assert process.alive()
    finally:
        robot.node.destroy_publisher(images)
        process.end()
