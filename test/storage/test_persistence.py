"""An observer's memory comes back bit for bit, goes on as if nothing had happened, and forgets for good."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from storage.robot import START_NS, STEP_NS, Robot, Uninterrupted, differences, fingerprint, step

from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.runtime.build import MOMENT_BYTES, POSE_BYTES, evidence_in_ram
from salmonn_node.storage.directory import list_memories
from salmonn_node.storage.snapshot import IncompatibleError
from salmonn_node.stream.moment import Moment
from salmonn_node.stream.observations import SECOND_NS, Interval, Pose


@pytest.fixture(scope="module")
def model() -> VideoSalmonnS:
    return VideoSalmonnS.tiny(seed=1)


@pytest.fixture(scope="module")
def never_died(model) -> Uninterrupted:
    return Uninterrupted(model)


def test_the_journal_alone_is_enough(tmp_path: Path, model, never_died):
    robot = Robot(tmp_path, model)
    robot.observe(0, 12)
    robot.die()
    again = Robot(tmp_path, model)
    assert again.report.snapshot is None
    assert differences(fingerprint(again.observer), never_died.at(12)) == []
    again.die()


def test_a_killed_observer_comes_back_bit_for_bit(tmp_path: Path, model, never_died):
    robot = Robot(tmp_path, model)
    robot.observe(0, 20)
    assert robot.persistence.save()
    robot.observe(20, 32)
    robot.die()
    again = Robot(tmp_path, model)
    assert again.report.snapshot == 1
    assert again.report.records > 30
    assert differences(fingerprint(again.observer), never_died.at(32)) == []
    again.observe(32, 44)
    again.die()
    once_more = Robot(tmp_path, model)
    assert differences(fingerprint(once_more.observer), never_died.at(44)) == []
    once_more.die()


def test_snapshots_beside_a_working_observer(tmp_path: Path, model, never_died):
    robot = Robot(tmp_path, model, period_s=1e-9, inline=False)
    for begin in range(0, 44, 4):
        robot.observe(begin, begin + 4)
        robot.store.wait()  # while one is written none begins, and a busy machine writes slowly
    assert len(robot.persistence.pauses_s) > 3
    robot.die()
    again = Robot(tmp_path, model)
    assert again.report.snapshot
    assert differences(fingerprint(again.observer), never_died.at(44)) == []
    again.die()


def test_another_network_is_refused(tmp_path: Path, model):
    robot = Robot(tmp_path, model)
    robot.observe(0, 4)
    assert robot.persistence.save()
    robot.die()
    with pytest.raises(IncompatibleError, match="checkpoint"):
        Robot(tmp_path, VideoSalmonnS.tiny(seed=2))
    with pytest.raises(IncompatibleError, match="config"):
        Robot(tmp_path, VideoSalmonnS.tiny(seed=1, time_marks="all"))
    Robot(tmp_path, model).die()


def test_a_clock_that_jumped_between_runs_keeps_the_old_memory_under_another_name(tmp_path: Path, model):
    robot = Robot(tmp_path, model)
    robot.observe(100, 108)
    before = fingerprint(robot.observer)
    robot.die()
    robot = Robot(tmp_path, model)
    robot.observe(0, 8)  # 50 s earlier: the clock was set back while the robot was off
    assert robot.observer.memory_id.endswith("-1")
    after = fingerprint(robot.observer)
    robot.die()
    again = Robot(tmp_path, model)
    assert differences(fingerprint(again.observer), after) == []
    assert list_memories(tmp_path) == ["m", "m-session-0"]
    again.die()
    (tmp_path / "other").mkdir(mode=0o700)
    (tmp_path / "m-session-0").rename(tmp_path / "other" / "m")
    previous = Robot(tmp_path / "other", model)
    assert differences(fingerprint(previous.observer), before) == []
    previous.die()


def stamp(n: int) -> int:
    return START_NS + n * STEP_NS


def test_forgetting_reaches_tokens_evidence_and_disk_and_sets_the_weights_back(tmp_path: Path, model):
    robot = Robot(tmp_path, model, compress=False)
    robot.observe(0, 24)
    assert robot.persistence.save()
    weights = robot.observer.memory.to_tensors()[0]["ttt.W1"]
    robot.observe(24, 48)
    assert not torch.equal(weights, robot.observer.memory.to_tensors()[0]["ttt.W1"])
    secret = model.fit(step(36)[2].image).tobytes()[:500]
    assert any(secret in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    interval = Interval(stamp(33), stamp(39))
    done = robot.persistence.forget(interval)
    assert done.tokens > 0
    assert done.evidence > 0
    assert done.weights_reverted
    assert stamp(22) < done.weights_from_ns <= stamp(25)
    assert done.copies == []
    assert torch.equal(weights, robot.observer.memory.to_tensors()[0]["ttt.W1"])
    assert not any(secret in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    view = robot.observer.view()
    assert not ((view.visual.last_ns >= interval.start_ns) & (view.visual.stamp_ns <= interval.end_ns)).any()
    assert (view.visual.stamp_ns < interval.start_ns).any()
    assert robot.store.evidence.between(interval.start_ns, interval.end_ns) == []
    robot.observe(48, 54)
    after = fingerprint(robot.observer)
    robot.die()
    again = Robot(tmp_path, model)
    assert differences(fingerprint(again.observer), after) == []
    again.die()


def test_forgetting_what_waits_and_without_an_earlier_snapshot(tmp_path: Path, model):
    robot = Robot(tmp_path, model)
    robot.observe(0, 21)
    assert robot.persistence.save_as("copy").number == 1
    done = robot.persistence.forget(Interval(stamp(8), stamp(60)))
    assert done.weights_from_ns == 0
    assert done.copies == ["copy"]
    initial = model.new_memory().to_tensors()[0]["ttt.W1"]
    tensors, _ = robot.observer.memory.to_tensors()
    assert torch.equal(tensors["ttt.W1"], initial)
    assert not tensors["ttt.lag_rows"].any()
    assert not [name for name in tensors if "frame" in name or "sound" in name]
    nothing = robot.persistence.forget(Interval(1, SECOND_NS))
    assert (nothing.tokens, nothing.evidence, nothing.weights_reverted) == (0, 0, False)
    robot.observe(61, 70)
    robot.die()


def test_clearing_leaves_nothing(tmp_path: Path, model):
    robot = Robot(tmp_path, model, compress=False)
    robot.observe(0, 8)
    assert robot.persistence.save()
    robot.observe(8, 12)
    secret = model.fit(step(10)[2].image).tobytes()[:500]
    assert any(secret in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    robot.persistence.clear()
    assert not any(secret in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert robot.observer.view().visual is None
    assert robot.observer.view().audio is None
    assert list_memories(tmp_path) == ["m"]
    robot.observe(12, 18)
    after = fingerprint(robot.observer)
    robot.die()
    again = Robot(tmp_path, model)
    assert differences(fingerprint(again.observer), after) == []
    again.die()


def test_the_newest_sessions_are_kept_by_number_and_empty_ones_are_not(tmp_path: Path, model):
    robot = Robot(tmp_path, model)
    robot.persistence.sessions_kept = 2
    day = []
    for number in range(4):
        robot.observe(8 * number, 8 * number + 6)
        day.append(fingerprint(robot.observer))
        robot.observer.restart()
        robot.observer.restart()  # a session in which nothing was observed
    assert list_memories(tmp_path) == ["m", "m-session-4", "m-session-6"]
    robot.die()
    (tmp_path / "other").mkdir(mode=0o700)
    (tmp_path / "m-session-4").rename(tmp_path / "other" / "m")
    earlier = Robot(tmp_path / "other", model)
    assert differences(fingerprint(earlier.observer), day[2]) == []
    earlier.die()


def test_evidence_in_ram_is_bounded():
    evidence = evidence_in_ram(4)
    assert evidence.max_bytes + evidence.max_moments * MOMENT_BYTES + evidence.max_poses * POSE_BYTES <= 4 << 20
    for n in range(1, 6000):
        pose = Pose(n, "map", np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]))
        evidence.add(
            Moment("vision", n, n + 1, Interval(n, n), "front", pose_id=evidence.add_pose(pose), thumbnail=b"x" * 2000)
        )
    sizes = evidence.sizes()
    assert sizes["thumbnail_bytes"] <= 2 << 20
    assert sizes["poses"] <= evidence.max_poses
    assert evidence.between(after_ns=5999), "the newest stays"
