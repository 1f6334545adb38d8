"""The node and a bag player as processes of their own, and a client beside them: for the demo and the live replay."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from salmonn_node.ros.client import Memory


def own_domain() -> None:
    """Use a ROS domain of our own on this machine only: a demo must not talk to a robot next door."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")


@contextlib.contextmanager
def running_node(
    log: Path, parameters: Mapping[str, str], remaps: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """The node's process, as `ros2 run` would start it; ended with SIGINT."""
    options = [item for name, value in parameters.items() for item in ("-p", f"{name}:={value}")]
    options += [item for name, topic in remaps.items() for item in ("-r", f"{name}:={topic}")]
    command = [sys.executable, "-m", "salmonn_node.ros.node", "--ros-args", *options]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            end(process)


def play(bag: Path, rate: float, log: Path, topics: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start playing a bag with /clock, once each of `topics` has a subscriber."""
    command = [sys.executable, "-m", "salmonn_node.ros.bag_player", str(bag), "--rate", str(rate)]
    with log.open("wb") as out:
        return subprocess.Popen([*command, "--wait-for", *topics], stdout=out, stderr=subprocess.STDOUT)


def end(process: subprocess.Popen[bytes], patience_s: float = 15.0) -> None:
    """End a process as Ctrl-C would, and if that does not help, for good."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def client(name: str) -> Iterator[Memory]:
    """A planner's client with a node of its own."""
    import rclpy

    from salmonn_node.ros.client import Memory

    # A caller that uses rclpy already goes on using it afterwards.
    ours = not rclpy.ok()
    if ours:
        rclpy.init()
    node = rclpy.create_node(name)
    try:
        yield Memory(node)
    finally:
        node.destroy_node()
        if ours:
            rclpy.try_shutdown()
