"""Robot of the soak test: the real node as a process to kill, stop and starve, a camera, and planners.

Pictures are numbered, and their stamps are one second apart. The number determines the bytes of a picture. The node
reports how many pictures it has observed, and the camera continues from there. So the memory is that of one
uninterrupted stream, whatever was killed.
"""

from __future__ import annotations

import array
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from salmonn_interfaces.srv import GetMemoryInfo
from salmonn_node.client import MANY_AT_ONCE, AnswerType, ErrorCode, Memory
from salmonn_node.messages.base import RosTypes, header_message, time_message
from salmonn_node.stream.observations import SECOND_NS

NAME, CAMERA = "salmonn", "camera"
FIRST_NS = 1_000 * SECOND_NS
WIDTH, HEIGHT = 64, 48
PATIENCE_S = 120.0
FULL_BYTES = 4096  # file size limit while the disk is "full"
PARAMETERS = {
    "use_sim_time": "true",
    "pose_type": "none",
    "microphones": "['']",
    "image_reliability": "reliable",
    "image_depth": "100",
    "snapshot_period_s": "3.0",
    "diagnostics_period_s": "1.0",
    "threads": "1",
}
TYPES = RosTypes()


def picture(number: int, **change: Any) -> Image:
    """Make the picture of a number. `change` replaces fields, to make it malformed."""
    data = np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8).tobytes()
    fields: dict[str, Any] = {
        "header": header_message(TYPES, FIRST_NS + number * SECOND_NS, "camera_optical"),
        "height": HEIGHT,
        "width": WIDTH,
        "encoding": "rgb8",
        "step": 3 * WIDTH,
        "data": array.array("B", data),
    }
    return Image(**fields | change)


class NodeUnderTest:
    """The node's process, over several lives, and the camera.

    Args:
        node: ROS node, spun by the caller.
        folder: folder for the memory and the logs.
        environment: environment of the process. It uses the caller's ROS domain.

    Attributes:
        sent: number of the next picture.
        lives: number of times the process was started.
        disturbed: spans (from, to; time.monotonic) in which the node could not reply.
        samples: for each life, samples of (resident bytes, open files).
    """

    def __init__(self, node: Any, folder: Path, environment: dict[str, str]) -> None:
        self.memories, self._folder, self._environment = folder / "memories", folder, environment
        self._images = node.create_publisher(Image, f"{CAMERA}/image", 100)
        self._clock = node.create_publisher(Clock, "/clock", 100)
        self._info = node.create_client(GetMemoryInfo, f"{NAME}/get_memory_info", qos_profile=MANY_AT_ONCE)
        self.client = Memory(node, NAME)
        self.process: subprocess.Popen[bytes] | None = None
        self.sent, self.lives = 0, 0
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
        wait(lambda: self._images.get_subscription_count() > 0, "the node subscribes")
        self.sent = self.info().status.frames

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

    def feed(self, pictures: int) -> None:
        """Send the next pictures, and wait until the node has observed them."""
        for _ in range(pictures):
            self.tick()
            self._images.publish(picture(self.sent))
            self.sent += 1
        wait(lambda: self.info().status.frames >= self.sent, f"picture {self.sent - 1} is taken")
        assert self.process is not None
        proc = Path(f"/proc/{self.process.pid}")
        pages = int((proc / "statm").read_text().split()[1])
        self.samples[-1].append((pages * resource.getpagesize(), len(os.listdir(proc / "fd"))))

    def tick(self, ahead_s: float = 0.0) -> None:
        """Publish the clock at the next picture, shifted by `ahead_s`."""
        now_ns = FIRST_NS + self.sent * SECOND_NS + round(ahead_s * SECOND_NS)
        self._clock.publish(Clock(clock=time_message(TYPES, now_ns)))

    def send(self, image: Image) -> None:
        """Send a picture that the node will refuse."""
        self._images.publish(image)

    def limit_files(self, size: int) -> None:
        """Limit the size of the node's files, as on a full disk. -1 removes the limit."""
        assert self.process is not None
        hard = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (hard if size < 0 else size, hard))


class Planner(threading.Thread):
    """Planner thread: ask, watch and cancel until `stop` is set, and count how each call ended.

    Attributes:
        ends: number of calls by error code.
        silent: spans (asked, given up) of calls without a reply.
    """

    def __init__(self, node: Any, seed: int, stop: threading.Event) -> None:
        super().__init__(name=f"planner {seed}", daemon=True)
        self._memory, self._chance, self._stopped = Memory(node, NAME), random.Random(seed), stop
        self.ends: Counter[str] = Counter()
        self.silent: list[tuple[float, float]] = []

    def run(self) -> None:
        """Call after call."""
        while not self._stopped.is_set():
            began = time.monotonic()
            answer = self._call()
            self.ends[answer.error_code.name] += 1
            if answer.error_code == ErrorCode.TIMEOUT and answer.error_msg.startswith("no reply"):
                self.silent.append((began, time.monotonic()))
            self._stopped.wait(self._chance.uniform(0.0, 0.2))

    def _call(self) -> Any:
        chance, timeout_s = self._chance, self._chance.choice([0.3, 2.0, 10.0])
        what = chance.choice(["ask", "ask", "cancel", "watch"])
        if what == "ask":
            kind = chance.choice([AnswerType.TEXT, AnswerType.BINARY, AnswerType.COUNT, AnswerType.POSITION])
            return self._memory.ask("Have you seen a blue cross?", answer_type=kind, timeout_s=timeout_s)
        cancel = threading.Event()
        timer = threading.Timer(chance.uniform(0.0, 0.5), cancel.set)
        timer.start()
        if what == "cancel":
            return self._memory.ask("Have you seen a blue cross?", timeout_s=timeout_s, cancel=cancel)
        return self._memory.watch("is there a blue cross?", after_ns=1, period_s=0.2, cancel=cancel).answer


def wait(condition: Any, what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for a condition. Raises RuntimeError with `what` if it does not become true in time."""
    give_up = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > give_up:
            raise RuntimeError(f"not within {patience_s:.0f} s: {what}")
        time.sleep(0.05)
