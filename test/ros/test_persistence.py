"""The running node killed with SIGKILL: what it observed is there when it comes back; and its memory services."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from lifecycle_msgs.msg import Transition
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image

from salmonn_interfaces.msg import AudioChunk, MemoryStatus
from salmonn_interfaces.srv import ForgetInterval, GetMemoryInfo, LoadMemory, SaveMemory
from salmonn_node.client import ErrorCode, Memory
from salmonn_node.messages.base import stamp_ns, time_message

from .harness import PATIENCE_S, SECOND_NS, TYPES, NodeProcess, Robot

pytestmark = pytest.mark.ros


class Keeper:
    """A node that keeps its memory under `folder`, fed in real time with sound, and a picture every second."""

    def __init__(self, robot: Robot, folder: Path) -> None:
        self.robot, self.folder = robot, folder
        self.process: NodeProcess | None = None
        self.status: MemoryStatus | None = None
        self.images = robot.node.create_publisher(Image, "eye/image", 100)
        self.sounds = robot.node.create_publisher(AudioChunk, "ear/audio", 100)
        self.now_ns = 5_000 * SECOND_NS
        self.starts = 0

    def _on_status(self, msg: MemoryStatus) -> None:
        with self.robot.change:
            self.status = msg
            self.robot.change.notify_all()

    def start(self, **more: str) -> None:
        self.status = None
        arguments = {
            "cameras": "[eye]",
            "microphones": "[ear]",
            "image_reliability": "reliable",
            "audio_type": "salmonn_interfaces/msg/AudioChunk",
            "pose_type": "none",
            "memory_directory": str(self.folder / "memories"),
            "snapshot_period_s": "1.0",
            "diagnostics_period_s": "0.5",
            "threads": "1",
            **more,
        }
        self.starts += 1
        # A new name each time: discovery takes a killed node for alive for another 20 s, and sends it requests.
        self.name = f"keeper{self.starts}"
        self.memory = Memory(self.robot.node, self.name)
        latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
        self.robot.node.create_subscription(MemoryStatus, f"{self.name}/memory_status", self._on_status, latched)
        log = self.folder / f"node{self.starts}.log"
        self.process = NodeProcess(log, arguments, name=self.name, scripted=False)
        self.memory.startup(PATIENCE_S)
        self.robot.wait(lambda: self.status is not None, PATIENCE_S, "the node says what it remembers")
        self.robot.wait(self._is_heard, PATIENCE_S, "the node subscribes")

    def _is_heard(self) -> bool:
        node = self.robot.node
        topics = {name for name, _ in node.get_subscriber_names_and_types_by_node(self.name, "/")}
        return {"/eye/image", "/ear/audio"} <= topics

    def kill(self) -> None:
        assert self.process is not None
        self.process.end(signal.SIGKILL)

    def feed(self, seconds: float) -> None:
        """Tenths of a second of sound, as they would come, and a picture every second."""
        for _ in range(round(seconds * 10)):
            if self.now_ns % SECOND_NS == 0:
                self.images.publish(self.robot.image(self.now_ns))
            self.sounds.publish(self.robot.sound(self.now_ns))
            self.now_ns += SECOND_NS // 10
            time.sleep(0.1)

    def newest_ns(self) -> int:
        return stamp_ns(self.status.last_observation) if self.status is not None else 0

    def call(self, service: Any, where: str, /, **fields: Any) -> Any:
        return self.robot.call(service, f"{self.name}/{where}", **fields)


@pytest.fixture
def keeper(robot: Robot, tmp_path: Path):
    made = Keeper(robot, tmp_path)
    yield made
    if made.process is not None:
        made.process.end(signal.SIGKILL)


def kill_often(keeper: Keeper, kills: int, capsys) -> None:
    chance = random.Random(0)
    losses = []
    keeper.start()
    for _ in range(kills):
        keeper.feed(chance.uniform(1.5, 3.5))
        keeper.kill()
        published_ns = keeper.now_ns
        keeper.start()
        assert keeper.status is not None
        losses.append((published_ns - keeper.newest_ns()) / SECOND_NS)
        assert keeper.status.frames >= (published_ns - 5_000 * SECOND_NS) // SECOND_NS - kills
        assert keeper.status.session == 0
        about_eye = keeper.memory.ask("is it so?", sources=["eye"], timeout_s=PATIENCE_S)
        assert about_eye.error_code == ErrorCode.NONE, "sources come back with the memory"
        past = keeper.memory.watch("is it so?", after_ns=1, until_ns=1, sources=["eye"], timeout_s=PATIENCE_S)
        assert past.evaluations == 1, "a watch looks at what an earlier process saw"
    with capsys.disabled():
        print(f"\nSIGKILLs of the node {kills}, stream lost max {max(losses):.2f} s, mean {sum(losses) / kills:.2f} s")
    assert max(losses) <= 1.0


def test_a_killed_node_remembers(keeper: Keeper, capsys) -> None:
    kill_often(keeper, 2, capsys)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_a_node_killed_twenty_times_remembers(keeper: Keeper, capsys) -> None:
    kill_often(keeper, 20, capsys)


def test_what_a_restore_lost_is_told(keeper: Keeper) -> None:
    """A flipped bit in the journal: the log, MemoryStatus and /diagnostics say that something is missing, and what."""
    keeper.start(snapshot_period_s="3600.0")
    keeper.feed(3.0)
    keeper.robot.wait(lambda: keeper.status.frames >= 3, PATIENCE_S, "three pictures are observed")
    keeper.kill()
    (segment,) = (keeper.folder / "memories" / "default" / "journal").glob("*.log")
    whole = bytearray(segment.read_bytes())
    whole[len(whole) // 2] ^= 1
    segment.write_bytes(whole)
    keeper.start(snapshot_period_s="3600.0")
    assert keeper.status.frames < 3
    assert "lost at the last restore" in keeper.status.persistence
    assert "checksum" in keeper.status.persistence
    robot, name = keeper.robot, keeper.name
    robot.wait(lambda: "lost at the last" in robot.value("memory", "message", name), PATIENCE_S, "diagnostics tell it")
    assert robot.value("memory", "level", name) == "1"
    assert segment.name in robot.value("memory", "storage", name)
    assert "fails its checksum" in keeper.process.log.read_text()


def test_services_save_describe_forget_and_load(keeper: Keeper) -> None:
    keeper.start()
    keeper.feed(6.0)
    saved = keeper.call(SaveMemory, "save_memory", name="kitchen")
    assert (saved.error_code, saved.error_msg, saved.name) == (0, "", "kitchen")
    assert saved.size_bytes > 1000
    assert keeper.call(SaveMemory, "save_memory", name="kitchen").error_code == SaveMemory.Response.EXISTS
    assert keeper.call(SaveMemory, "save_memory", name="../kitchen").error_code == SaveMemory.Response.INVALID_NAME
    info = keeper.call(GetMemoryInfo, "get_memory_info")
    assert set(info.stored) == {"default", "kitchen"}
    assert keeper.call(GetMemoryInfo, "get_memory_info", name="cellar").error_code == GetMemoryInfo.Response.NOT_FOUND
    start, end = time_message(TYPES, 5_001 * SECOND_NS), time_message(TYPES, 5_003 * SECOND_NS)
    forgotten = keeper.call(ForgetInterval, "forget_interval", start=start, end=end)
    assert forgotten.error_code == 0
    assert forgotten.weights_reverted
    assert forgotten.evidence_forgotten > 0
    assert "kitchen" in forgotten.error_msg
    wrong = keeper.call(ForgetInterval, "forget_interval", start=end, end=start)
    assert wrong.error_code == ForgetInterval.Response.INVALID_INTERVAL
    assert keeper.call(LoadMemory, "load_memory", name="kitchen").error_code == LoadMemory.Response.WRONG_STATE
    assert keeper.memory.change_state(Transition.TRANSITION_DEACTIVATE)
    loaded = keeper.call(LoadMemory, "load_memory", name="kitchen")
    assert (loaded.error_code, loaded.error_msg) == (0, "")
    assert loaded.status.memory_id.startswith("kitchen")
    assert loaded.status.frames == 6
    assert keeper.call(LoadMemory, "load_memory", name="cellar").error_code == LoadMemory.Response.NOT_FOUND
