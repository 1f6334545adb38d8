"""A robot's stream in small: pictures, sound and poses that follow from the number of the step alone."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from salmonn_node.ingest.observer import Observer
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.storage.persistence import Persistence, identity_of
from salmonn_node.storage.store import MemoryStore
from salmonn_node.stream.observations import SECOND_NS, AudioChunk, Frame, Pose

STEP_NS = SECOND_NS // 2
START_NS = 1_700_000_000 * SECOND_NS


def step(n: int) -> list[Frame | AudioChunk | Pose]:
    """What arrives in the n-th half second."""
    stamp_ns = START_NS + n * STEP_NS
    yaw = n / 20
    turned = np.array([0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)])
    pose = Pose(stamp_ns, "map", np.array([n / 10, math.sin(n), 0.0]), turned, np.eye(6) * 0.01, "house")
    chance = np.random.default_rng(n)
    coarse = chance.integers(0, 255, (6, 10, 3), np.uint8)
    image = np.repeat(np.repeat(coarse, 24, 0), 24, 1)
    sound = (0.2 * np.sin(np.arange(8000) * (0.05 + n % 7 / 50))).astype(np.float32)
    return [pose, AudioChunk(stamp_ns, "mic", sound), Frame(stamp_ns, "front", image, "optical")]


class Robot:
    """An observer with its memory on disk."""

    def __init__(self, root: Path, model: VideoSalmonnS, *, period_s: float = 0.0, inline: bool = True, **options):
        self.store = MemoryStore(root, "m", identity_of(model), **{"sync_period_s": 0.0, **options})
        self.observer = Observer(model, evidence=self.store.evidence, inline=inline)
        self.persistence = Persistence(self.observer, self.store, snapshot_period_s=period_s)
        try:
            self.report = self.persistence.restore()
        except BaseException:
            self.store.close()
            raise

    def observe(self, begin: int, end: int) -> None:
        for n in range(begin, end):
            for observation in step(n):
                self.observer.submit(observation)
        self.observer.drain()

    def die(self) -> None:
        """As a killed process does: nothing is flushed."""
        self.observer.close()
        self.store.wait()
        self.store._lock.release()
        self.store.evidence._db.close()


def fingerprint(observer: Observer) -> dict:
    """Everything that a restore must give back bit for bit."""
    tensors, values = observer.memory.to_tensors()
    found = {
        f"{name} {tensor.dtype} {tuple(tensor.shape)}": tensor.numpy().tobytes() for name, tensor in tensors.items()
    }
    intake = observer.intake
    counts = (intake.frames, round(intake.audio_s, 6), intake.poses)
    return {**found, "values": json.loads(json.dumps(values)), "evidence": observer.evidence.digest(), "counts": counts}


def differences(left: dict, right: dict) -> list[str]:
    """Names of what differs."""
    return [name for name in sorted({*left, *right}) if left.get(name) != right.get(name)]


class Uninterrupted:
    """A process that never died; `at` tells what it had after so many steps, which must not decrease between calls."""

    def __init__(self, model: VideoSalmonnS) -> None:
        self.observer = Observer(model, inline=True)
        self._known: dict[int, dict] = {}
        self._steps = 0

    def at(self, end: int) -> dict:
        if end not in self._known:
            assert end >= self._steps
            for n in range(self._steps, end):
                for observation in step(n):
                    self.observer.submit(observation)
            self._steps = end
            self._known[end] = fingerprint(self.observer)
        return self._known[end]
