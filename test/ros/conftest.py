"""A ROS graph of its own for this run, one node process that many tests share, and a robot that publishes to it."""

from __future__ import annotations

import os

# Before any rclpy.init: tests must not meet a robot next door, nor each other.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)

from collections.abc import Iterator
from pathlib import Path

import pytest

from salmonn_node.client import Memory

from .harness import PATIENCE_S, NodeProcess, Robot

RESEND_S = 20.0  # diagnostics come once a second


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A failing test shows what its nodes said."""
    report = (yield).get_result()
    if report.failed:
        report.sections += [(f"node {process.name}", process.tail()) for process in NodeProcess.started]
    if call.when == "teardown":
        NodeProcess.started[:] = [process for process in NodeProcess.started if process.alive()]


def pytest_sessionfinish() -> None:
    """A test that failed half way leaves no node behind."""
    for process in NodeProcess.started:
        if process.alive():
            process.process.kill()
            process.process.wait()


@pytest.fixture(scope="session")
def robot() -> Iterator[Robot]:
    robot = Robot()
    yield robot
    robot.close()


@pytest.fixture(scope="session")
def node(robot: Robot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """The scripted node, active, on simulated time, with a raw and a compressed camera and a microphone."""
    folder: Path = tmp_path_factory.mktemp("node")
    arguments = {
        "use_sim_time": "true",
        "cameras": "[camera, jpeg]",
        "jpeg.image_transport": "compressed",
        "camera.mount": "[0.2, 0.0, 1.0, -1.8, 0.0, -1.5707963]",
        "image_reliability": "reliable",
        "image_depth": "50",
        "audio_type": "salmonn_interfaces/msg/AudioChunk",
        "diagnostics_period_s": "0.1",
        "memory_directory": str(folder / "memories"),
        "max_new_tokens": "2",
        "threads": "1",
    }
    process = NodeProcess(folder / "node.log", arguments)
    Memory(robot.node).startup(PATIENCE_S)
    robot.wait(robot.is_heard, PATIENCE_S, "the node subscribes to everything")
    yield process
    process.end()


@pytest.fixture
def memory(node: NodeProcess, robot: Robot) -> Memory:
    return Memory(robot.node)


@pytest.fixture
def seen(robot: Robot, node: NodeProcess) -> int:
    """Three images a second apart, all seen at x = 2 m, whichever two make a temporal patch; gives the last stamp."""
    frames = robot.steady("memory", "frames")
    robot.step()  # the test before may have set the clock back: an image less than a second after its last is left out

    def show() -> int:
        stamp = robot.step()
        robot.poses.publish(robot.odometry(stamp - 50_000_000, 2.0))
        robot.poses.publish(robot.odometry(stamp + 50_000_000, 2.0))
        robot.images.publish(robot.image(stamp))
        return stamp

    stamp = [show() for _ in range(3)][-1]
    for _ in range(round(PATIENCE_S / RESEND_S)):
        if robot.becomes(lambda: robot.count("memory", "frames") >= frames + 3, RESEND_S):
            break
        stamp = show()  # images are sent at best effort: on a loaded machine one may be lost
    else:
        pytest.fail(f"three images were not taken\n{robot.diagnostics}")
    return stamp
