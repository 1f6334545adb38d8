"""Robot of the soak test: the real node as a process to kill, stop and starve, and its sensors.

The node reports how much it has observed, and the sensors continue from there. So the memory is that of one
uninterrupted stream, whatever was killed.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from salmonn_interfaces.msg import AudioChunk
from salmonn_interfaces.srv import GetMemoryInfo
from salmonn_node.client import MANY_AT_ONCE, Memory
from salmonn_node.lab.bench.soak_stream import (
    CAMERA,
    FIRST_NS,
    MICROPHONE,
    RATE_HZ,
    TYPES,
    Course,
    picture,
    pose,
    sound,
)
from salmonn_node.messages.base import time_message
from salmonn_node.stream.observations import SECOND_NS

NAME = "salmonn"
PATIENCE_S = 120.0
FULL_BYTES = 4096  # file size limit while the disk is "full"
PARAMETERS = {
    "use_sim_time": "true",
    "pose_type": "pose",
    "pose_reliability": "reliable",
    "audio_type": "salmonn_interfaces/msg/AudioChunk",
    "image_reliability": "reliable",
    "image_depth": "100",
    "snapshot_period_s": "3.0",
    "snapshots_kept": "3",
    "sessions_kept": "3",
    "diagnostics_period_s": "0.5",
    "threads": "1",
}


class NodeUnderTest:
    """The node's process, over several lives, and its sensors.

    Args:
        node: ROS node, spun by the caller.
        folder: folder for the memory and the logs.
        environment: environment of the process. It uses the caller's ROS domain.

    Attributes:
        sent: the second of the stream that is sent next.
        courses: for each session, what the node observed.
        ahead_s: by how much the clock is ahead of the stream.
        lives: number of times the process was started.
        disturbed: spans (from, to; time.monotonic) in which the node could not reply.
        samples: for each life, samples of (resident bytes, open files).
    """

    def __init__(self, node: Any, folder: Path, environment: dict[str, str]) -> None:
        self.memories, self._folder, self._environment = folder / "memories", folder, environment
        self._images = node.create_publisher(Image, f"{CAMERA}/image", 100)
        self._sounds = node.create_publisher(AudioChunk, f"{MICROPHONE}/audio", 100)
        self._poses = node.create_publisher(PoseStamped, "pose", 100)
        self._clock = node.create_publisher(Clock, "/clock", 100)
        self._info = node.create_client(GetMemoryInfo, f"{NAME}/get_memory_info", qos_profile=MANY_AT_ONCE)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._keep_diagnostics, 10)
        self._memory_values: dict[str, str] = {}
        self.client = Memory(node, NAME)
        self.process: subprocess.Popen[bytes] | None = None
        self.sent, self.lives, self.ahead_s = 0, 0, 0.0
        self.courses: dict[int, Course] = {}
        self.disturbed: list[tuple[float, float]] = []
        self.samples: list[list[tuple[int, int]]] = []

    def start(self) -> None:
        """Start the process, activate the node, and continue after the newest picture that it remembers."""
        command = [sys.executable, "-m", "salmonn_node.ros.node", "--ros-args"]
        for name, value in {**PARAMETERS, "memory_directory": str(self.memories)}.items():
            command += ["-p", f"{name}:={value}"]
        with (self._folder / f"node{self.lives}.log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=self._environment)
        self.lives += 1
        self.samples.append([])
        self.client.startup(PATIENCE_S)
        publishers = (self._images, self._sounds, self._poses)
        wait(lambda: all(p.get_subscription_count() > 0 for p in publishers), "the node subscribes")
        status = self.info().status
        course = self.courses.setdefault(status.session, Course(self.sent))
        self.sent = course.first + status.frames
        course.cut(self.sent)

    def end(self, number: signal.Signals) -> int:
        """End the process and return its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def info(self) -> Any:
        """Call get_memory_info. Repeat if no reply comes, as after a kill."""
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up and self.alive():
            future = self._info.call_async(GetMemoryInfo.Request())
            until = time.monotonic() + 5.0
            while not future.done() and time.monotonic() < until:
                time.sleep(0.02)
            if future.done() and future.result().error_code == 0:
                return future.result()
            self._info.remove_pending_request(future)
        raise RuntimeError("the node does not say what it remembers")

    def feed(self, seconds: int) -> None:
        """Send the next seconds of the stream, and wait until the node has observed them."""
        for _ in range(seconds):
            status = self.info().status
            course = self.courses[status.session]
            heard, end = course.first * RATE_HZ + round(status.audio_s * RATE_HZ), (self.sent + 1) * RATE_HZ
            poses = course.first + status.poses
            self.tick()
            if heard < end:
                self._sounds.publish(sound(heard, end))
                course.steps.append(("sound", heard, end))
            for number in range(poses, self.sent + 1):
                self._poses.publish(pose(number))
                course.steps.append(("pose", number, number + 1))
            # Sound and poses come first. So the order in which the node observes is known.
            whole = self.sent + 1 - course.first
            self._wait(lambda now, n=whole: round(now.audio_s * RATE_HZ) >= n * RATE_HZ and now.poses >= n, "sound")
            self.send_pictures(1)
            self._wait(lambda now, n=whole: now.frames >= n, "picture")
        assert self.process is not None
        proc = Path(f"/proc/{self.process.pid}")
        pages = int((proc / "statm").read_text().split()[1])
        self.samples[-1].append((pages * resource.getpagesize(), len(os.listdir(proc / "fd"))))

    def send_pictures(self, number: int) -> None:
        """Send the next pictures without waiting."""
        course = self.courses[max(self.courses)]
        for _ in range(number):
            self._images.publish(picture(self.sent))
            course.steps.append(("picture", self.sent, self.sent + 1))
            self.sent += 1

    def _wait(self, condition: Any, what: str) -> None:
        wait(lambda: condition(self.info().status), f"second {self.sent} is observed: {what}")

    def tick(self) -> None:
        """Publish the clock."""
        now_ns = FIRST_NS + self.sent * SECOND_NS + round(self.ahead_s * SECOND_NS)
        self._clock.publish(Clock(clock=time_message(TYPES, now_ns)))

    def begin_session(self, back_s: float) -> None:
        """Set the clock back, and wait until the node has begun another session."""
        before = self.info().status.session
        self.ahead_s -= back_s

        def begun() -> bool:
            self.tick()
            return bool(self.info().status.session > before)

        wait(begun, "the clock was reset and a session begins")
        self.courses[self.info().status.session] = Course(self.sent)

    def clock_steps(self) -> int:
        """Small steps of the clock that this process says it tolerated."""
        return int(self._memory_values.get("clock_steps_tolerated", 0))

    def _keep_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:
            if status.name.endswith("memory"):
                self._memory_values = {value.key: value.value for value in status.values}

    def send_malformed(self, messages: list[Any]) -> None:
        """Send messages that the node will refuse."""
        publishers = {Image: self._images, AudioChunk: self._sounds, PoseStamped: self._poses}
        for message in messages:
            publishers[type(message)].publish(message)

    def limit_files(self, size: int) -> None:
        """Limit the size of the node's files, as on a full disk. -1 removes the limit."""
        assert self.process is not None
        hard = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (hard if size < 0 else size, hard))


def wait(condition: Any, what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for a condition. Raises RuntimeError with `what` if it does not become true in time."""
    give_up = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > give_up:
            raise RuntimeError(f"not within {patience_s:.0f} s: {what}")
        time.sleep(0.05)
