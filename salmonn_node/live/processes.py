"""The node and a bag player as processes of their own, and a client beside them: for the demo and the live replay."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from salmonn_node.runtime.shared_memory import FIRST_PORT, PORTS_PER_DOMAIN, remove_empty_ports

if TYPE_CHECKING:
    from rclpy.node import Node

    from salmonn_node.client import Memory

# The first participant of a domain listens for discovery at this distance from the domain's first port.
FIRST_LISTENER = 10


def own_domain() -> None:
    """Use a ROS domain of our own on this machine only: a demo must not talk to a robot next door."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    remove_empty_ports()


def free_domain() -> int:
    """A ROS domain that nobody on this machine uses; raises RuntimeError when there is none among 1 to 100."""
    for offset in range(100):
        domain = 1 + (os.getpid() + 37 + offset) % 100
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", FIRST_PORT + PORTS_PER_DOMAIN * domain + FIRST_LISTENER))
            except OSError:
                continue
            remove_empty_ports(domain)
            return domain
    raise RuntimeError("each ROS domain from 1 to 100 is in use on this machine")


def _environment(domain: int | None) -> dict[str, str]:
    """This process' environment, in another domain if one is given; nobody else's graph is touched then."""
    if domain is None:
        return dict(os.environ)
    return {**os.environ, "ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


@contextlib.contextmanager
def running_node(
    log: Path, parameters: Mapping[str, str], remaps: Mapping[str, str], domain: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """The node's process, as `ros2 run` would start it; ended with SIGINT."""
    options = [item for name, value in parameters.items() for item in ("-p", f"{name}:={value}")]
    options += [item for name, topic in remaps.items() for item in ("-r", f"{name}:={topic}")]
    command = [sys.executable, "-m", "salmonn_node.ros.node", "--ros-args", *options]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=_environment(domain))
        try:
            yield process
        finally:
            end(process)


def play(
    bag: Path,
    rate: float,
    log: Path,
    topics: Sequence[str],
    *,
    meet: str = "",
    report: Path | None = None,
    domain: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start playing a bag with /clock, once each of `topics` has a subscriber.

    Args:
        bag: what to play.
        rate: times as fast as recorded.
        log: file for what the player prints.
        topics: wait for subscribers of these.
        meet: wait until the node of this name hears of all that is played.
        report: file for the number of messages played on each topic.
        domain: ROS domain; this process' own when left out.
    """
    command = [sys.executable, "-m", "salmonn_node.live.bag_player", str(bag), "--rate", str(rate)]
    command += ["--meet", meet] if meet else []
    command += ["--report", str(report)] if report is not None else []
    command += ["--wait-for", *topics]
    with log.open("wb") as out:
        return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=_environment(domain))


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

    from salmonn_node.client import Memory

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


@contextlib.contextmanager
def spun_node(name: str, domain: int) -> Iterator[Node]:
    """A node of our own in a domain, spun by a thread; nothing else in this process that uses rclpy is touched."""
    import rclpy

    from salmonn_node.ros.spinning import MessagesFirstExecutor

    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    executor = MessagesFirstExecutor(2, context=context)
    node = rclpy.create_node(name, context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, name=name, daemon=True)
    thread.start()
    try:
        yield node
    finally:
        executor.shutdown(timeout_sec=5.0)
        thread.join(5.0)
        node.destroy_node()
        rclpy.try_shutdown(context=context)
