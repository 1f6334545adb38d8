"""The event log with its words goes along when a memory is saved under another name, exported, and restored."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from storage.robot import START_NS, Robot, differences, fingerprint

from salmonn_node.ingest.observer import Observer
from salmonn_node.memory.event_log import EventLog, EventLogConfig
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.storage.directory import MemoryPlace
from salmonn_node.storage.export import export_memory
from salmonn_node.storage.persistence import Persistence, identity_of
from salmonn_node.storage.store import MemoryStore
from salmonn_node.stream.observations import SECOND_NS, AudioChunk, Frame


@pytest.fixture(scope="module")
def model() -> VideoSalmonnS:
    model = VideoSalmonnS.tiny(seed=1)
    model.event_log = EventLog(None, EventLogConfig(pictures=4, firsts=2, sound_bytes=1 << 20))
    return model


def look(robot: Robot, begin: int, end: int) -> None:
    """Three pictures of each place, so that they last, and sound."""
    for n in range(begin, end):
        image = np.random.default_rng(n // 3).integers(0, 255, (9, 16, 3), np.uint8).repeat(10, 0).repeat(10, 1)
        robot.observer.submit(AudioChunk(START_NS + n * SECOND_NS, "mic", np.full(16_000, n / 100, np.float32)))
        robot.observer.submit(Frame(START_NS + n * SECOND_NS, "front", image, "optical"))


def words(observer: Observer) -> list[str]:
    assert observer.memory.log is not None
    return [entry.caption for entry in observer.memory.log.entries()]


def test_words_go_along_in_copies_and_exports(tmp_path: Path, model: VideoSalmonnS) -> None:
    robot = Robot(tmp_path / "memories", model)
    look(robot, 0, 12)
    assert robot.persistence.save()
    log = robot.observer.memory.log
    assert log is not None
    for number, entry in enumerate(log.entries()):
        assert robot.observer.caption(entry.key, f"place {number}")
    told, whole = words(robot.observer), fingerprint(robot.observer)
    assert len(told) >= 4
    assert told[0] == "place 0"
    robot.persistence.save_as("copy")
    robot.die()
    # The words stand in the journal alone: they came after the snapshot.
    export_memory(MemoryPlace(tmp_path / "memories", "m"), tmp_path / "m.tar")
    with tarfile.open(tmp_path / "m.tar") as archive:
        archive.extractall(tmp_path / "elsewhere")
    moved = Robot(tmp_path / "elsewhere", model)
    assert differences(fingerprint(moved.observer), whole) == []
    moved.die()
    store = MemoryStore(tmp_path / "memories", "copy", identity_of(model), sync_period_s=0.0)
    observer = Observer(model, evidence=store.evidence, inline=True)
    Persistence(observer, store, snapshot_period_s=0.0).restore()
    assert words(observer) == told
    store.close()
