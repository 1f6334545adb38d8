"""The launch files start the real node as their arguments say, and play a bag into it when it is active."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from lifecycle_msgs.msg import Transition

from .conftest import ACTIVE, INACTIVE, ROOT, UNCONFIGURED, Launched

pytestmark = [pytest.mark.full, pytest.mark.launch]
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
Launch = Callable[..., Launched]


def test_a_raw_camera_under_the_robots_own_topic_names(launch: Launch):
    node = launch("salmonn.launch.py", "image_transport:=raw", "camera_image:=/cam0/image_raw", "pose:=/odom")

    node.become(ACTIVE)
    node.hears({"/cam0/image_raw": IMAGE, "/odom": "nav_msgs/msg/Odometry"})

    assert node.end() == 0
    assert "process has finished cleanly" in node.said()


def test_two_cameras_in_a_namespace_with_a_parameter_file(launch: Launch, tmp_path: Path):
    file = tmp_path / "mine.yaml"
    lines = ("visual_tokens: 1024", "rear.image_transport: raw", "pose_type: odometry", "device: cuda")
    file.write_text("/**:\n  ros__parameters:\n" + "".join(f"    {line}\n" for line in lines), encoding="utf-8")
    node = launch(
        "salmonn.launch.py",
        "namespace:=robot1",
        "name:=memory",
        f"params_file:={file}",
        "checkpoint:=tiny",
        "device:=cpu",
        "cameras:=[front, rear]",
        "image_transport:=compressed",
        "remap:=front/image/compressed:=/cam0/image/compressed,rear/image:=/cam1/image_raw",
        name="/robot1/memory",
    )

    node.become(ACTIVE)
    node.hears({"/cam0/image/compressed": COMPRESSED, "/cam1/image_raw": IMAGE})
    node.hears({"/robot1/pose": "nav_msgs/msg/Odometry"})

    names = ("cameras", "checkpoint", "device", "visual_tokens")
    assert node.parameters(*names) == [["front", "rear"], "tiny", "cpu", 1024]
    assert node.end() == 0


def test_a_lifecycle_manager_without_a_bond_brings_the_node_up_and_down_twice(launch: Launch):
    """The transitions that Nav2's manager asks for, with `bond_timeout: 0.0`: startup, reset, startup, shutdown."""
    node = launch("salmonn.launch.py", "autostart:=false", "device:=cpu")
    assert node.state() == UNCONFIGURED
    for _ in range(2):
        assert node.change(Transition.TRANSITION_CONFIGURE)
        assert node.state() == INACTIVE
        assert node.change(Transition.TRANSITION_ACTIVATE)
        assert node.state() == ACTIVE
        assert node.change(Transition.TRANSITION_DEACTIVATE)
        assert node.change(Transition.TRANSITION_CLEANUP)
        assert node.state() == UNCONFIGURED
    assert node.change(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)

    assert node.end() == 0


def test_a_bag_starts_when_the_node_is_active_and_its_end_ends_everything(launch: Launch, tmp_path: Path):
    bag, whole = tmp_path / "bag", ROOT / "salmonn_node/live/demo_data/bag"
    salmonn = Path(sys.executable).parent / "salmonn"
    subprocess.run([salmonn, "bag", "cut", whole, bag, "--duration", "6"], check=True, timeout=120)
    node = launch(
        "replay.launch.py",
        f"bag:={bag}",
        "rate:=2",
        "cameras:=[front]",
        "microphones:=[mic]",
        "image_transport:=compressed",
        "device:=cpu",
        "shutdown_at_end:=true",
    )

    assert node.result() == 0, node.said()
    said = node.said()
    assert said.index("configured, activating") < said.index("messages"), said
    assert said.count("process has finished cleanly") == 2, said
