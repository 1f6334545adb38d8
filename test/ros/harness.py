"""What the ROS tests share: a node process, and a robot's side of the graph with publishers and listeners."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image

from salmonn_interfaces.msg import AudioChunk, MemoryStatus
from salmonn_interfaces.srv import Query
from salmonn_node.client import Memory
from salmonn_node.client.qos import LATCHED, MANY_AT_ONCE
from salmonn_node.messages import RosTypes
from salmonn_node.messages.base import header_message, time_message
from salmonn_node.ros.spinning import MessagesFirstExecutor
from salmonn_node.runtime.shared_memory import remove_empty_ports

SECOND_NS = 1_000_000_000
ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT = 64, 48
TYPES = RosTypes()
# Generous: a machine that is shared may be slow, and a wait ends as soon as what it waits for is there.
PATIENCE_S = 120.0
LOG_LINES = 60


class NodeProcess:
    """A node in a process of its own; `end` returns its exit status.

    Args:
        log: file for what it prints.
        parameters: of the node.
        name: of the node.
        scripted: whether it is a node of the tests, else the real one.
        script: which of the tests' nodes.
        domain: ROS domain; this run's when left out.

    Attributes:
        started: all of this run whose logs a failing test shows; those that have ended are let go by the next test.
    """

    started: ClassVar[list[NodeProcess]] = []

    def __init__(
        self,
        log: Path,
        parameters: dict[str, str],
        *,
        name: str = "salmonn",
        scripted: bool = True,
        script: str = "scripted_node.py",
        domain: int | None = None,
    ) -> None:
        self.log, self.folder, self.name = log, log.parent, name
        command = [sys.executable]
        command += [str(ROOT / "test/ros" / script)] if scripted else ["-m", "salmonn_node.ros.node"]
        command += ["--ros-args", "-r", f"__node:={name}"]
        for key, value in parameters.items():
            command += ["-p", f"{key}:={value}"]
        with log.open("wb") as out:
            environment = _environment() | ({} if domain is None else {"ROS_DOMAIN_ID": str(domain)})
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, env=environment)
        self.started.append(self)

    def tail(self) -> str:
        """Whether the process lives, and the end of its log."""
        lines = self.log.read_text(errors="replace").splitlines()
        state = "runs" if self.alive() else f"ended with {self.process.returncode}"
        return "\n".join([f"node {self.name} {state}; its log ends:", *lines[-LOG_LINES:]])

    def alive(self) -> bool:
        return self.process.poll() is None

    def end(self, number: signal.Signals = signal.SIGINT, timeout_s: float = PATIENCE_S) -> int:
        if self.alive():
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def _environment() -> dict[str, str]:
    # A ROS installation that is sourced puts its own packages there.
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


class Robot:
    """Cameras, microphone, odometry and clock, and what comes back. Stamps grow from test to test."""

    def __init__(self) -> None:
        remove_empty_ports()
        rclpy.init()
        self.node = rclpy.create_node("robot")
        self.diagnostics: dict[str, dict[str, str]] = {}
        self.arrays = 0
        self.status: MemoryStatus | None = None
        self.change = threading.Condition()
        self._clients: dict[str, Any] = {}
        reliable = QoSProfile(depth=100)
        self.images = self.node.create_publisher(Image, "camera/image", reliable)
        self.jpegs = self.node.create_publisher(CompressedImage, "jpeg/image/compressed", reliable)
        self.sounds = self.node.create_publisher(AudioChunk, "microphone/audio", reliable)
        self.poses = self.node.create_publisher(Odometry, "pose", reliable)
        self.clock = self.node.create_publisher(Clock, "/clock", reliable)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)
        self.node.create_subscription(MemoryStatus, "salmonn/memory_status", self._on_status, LATCHED)
        self.queries = self.node.create_client(Query, "salmonn/query", qos_profile=MANY_AT_ONCE)
        self.executor = MessagesFirstExecutor(4)
        self.executor.add_node(self.node)
        self._thread = threading.Thread(target=self.executor.spin, daemon=True)
        self._thread.start()
        self.now_ns = 1_000 * SECOND_NS

    def close(self) -> None:
        self.executor.shutdown()
        self._thread.join(5.0)
        self.node.destroy_node()
        rclpy.try_shutdown()

    # -- out --

    def step(self, seconds: float = 1.0) -> int:
        """Let time pass, publish it, and give the new stamp."""
        self.now_ns += round(seconds * SECOND_NS)
        self.clock.publish(Clock(clock=time_message(TYPES, self.now_ns)))
        return self.now_ns

    def image(self, stamp_ns: int, **change: Any) -> Image:
        data = np.random.default_rng(stamp_ns % 1000).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8).tobytes()
        fields = {
            "header": header_message(TYPES, stamp_ns, "camera_optical"),
            "height": HEIGHT,
            "width": WIDTH,
            "encoding": "rgb8",
            "step": 3 * WIDTH,
            "data": TYPES.data(data),
        }
        return Image(**(fields | change))

    def jpeg(self, stamp_ns: int, **change: Any) -> CompressedImage:
        data = cv2.imencode(".jpg", np.full((HEIGHT, WIDTH, 3), 80, np.uint8))[1].tobytes()
        fields = {"header": header_message(TYPES, stamp_ns, "jpeg_optical"), "format": "jpeg", "data": TYPES.data(data)}
        return CompressedImage(**(fields | change))

    def sound(self, stamp_ns: int, **change: Any) -> AudioChunk:
        samples = (0.1 * np.sin(np.arange(1600) / 10)).astype("<f4")
        fields = {
            "header": header_message(TYPES, stamp_ns, "microphone"),
            "sample_rate_hz": 16_000,
            "channels": 1,
            "encoding": AudioChunk.F32LE,
            "data": TYPES.data(samples.tobytes()),
        }
        return AudioChunk(**(fields | change))

    def odometry(self, stamp_ns: int, x: float = 0.0, **change: Any) -> Odometry:
        message = Odometry(header=header_message(TYPES, stamp_ns, "map"), child_frame_id="base_link")
        message.pose.pose.position.x = x
        message.pose.pose.orientation.w = 1.0
        message.pose.covariance[0] = 0.1
        for name, value in change.items():
            setattr(message, name, value)
        return message

    # -- back --

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        with self.change:
            for status in msg.status:
                values = {pair.key: pair.value for pair in status.values}
                self.diagnostics[status.name] = values | {"message": status.message, "level": str(ord(status.level))}
            self.arrays += 1
            self.change.notify_all()

    def _on_status(self, msg: MemoryStatus) -> None:
        with self.change:
            self.status = msg
            self.change.notify_all()

    def value(self, name: str, key: str, node: str = "salmonn") -> str:
        with self.change:
            return self.diagnostics.get(f"{node}: {name}", {}).get(key, "")

    def count(self, name: str, key: str) -> int:
        return int(self.value(name, key) or 0)

    def steady(self, name: str, key: str) -> int:
        """The value once three diagnostics in a row have shown the same: what was on its way has arrived."""
        values: list[tuple[int, int]] = []

        def same() -> bool:
            if not values or self.arrays > values[-1][0]:
                values.append((self.arrays, self.count(name, key)))
            return len(values) >= 3 and len({value for _, value in values[-3:]}) == 1

        self.wait(same, PATIENCE_S, f"{name}: {key} stays the same")
        return values[-1][1]

    def is_heard(self) -> bool:
        return all(p.get_subscription_count() for p in (self.images, self.jpegs, self.sounds, self.poses, self.clock))

    def call(self, service: Any, name: str, /, **fields: Any) -> Any:
        """Call a service, "node/service", once the node is known to hear of this client's end; fails without reply."""
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = self.node.create_client(service, name)
            assert client.wait_for_service(PATIENCE_S), name
            # A reply to endpoints made later means that the node knows this one, too.
            assert Memory(self.node, name.rpartition("/")[0]).state(PATIENCE_S) != "absent", name
        future = client.call_async(service.Request(**fields))
        self.wait(future.done, PATIENCE_S, f"{name} replies")
        return future.result()

    def becomes(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for a condition that messages make true; whether it came true within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() >= deadline:
                return False
            with self.change:
                self.change.wait(0.05)
        return True

    def wait(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait for a condition that messages make true; fail, saying `what`, after `timeout_s`."""
        assert self.becomes(condition, timeout_s), f"not within {timeout_s} s: {what}\n{self.diagnostics}"
