"""The memory of a recording in the cache: made once, answers as a replay does, keyed by what it depends on."""

from __future__ import annotations

import math
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from replay.bags import START_NS, write_bag

from salmonn_node.evaluation.answer_file import answer_to_json
from salmonn_node.evaluation.questions import EvidenceInterval, Expected, QuestionRecord
from salmonn_node.model.network_settings import NetworkSettings
from salmonn_node.replay.job import Job, JobSettings, run_job
from salmonn_node.replay.recorded_memory import RecordedMemory, cache_root, content_digest, remember
from salmonn_node.stream.answers import Answer, AnswerType, Question
from salmonn_node.stream.frame_tree import FrameTree
from salmonn_node.stream.observations import SECOND_NS, Pose

TEXT = "Did you see a light room?"


@pytest.fixture(scope="module")
def bag(tmp_path_factory) -> Path:
    return write_bag(tmp_path_factory.mktemp("bags") / "walk", seconds=6)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def asked(memory: RecordedMemory) -> Answer:
    question = Question(TEXT, AnswerType.BINARY, want_thumbnails=True)
    return memory.answerer.ask(question, deadline=math.inf, cancel=threading.Event())


def values(answer: Answer) -> dict:
    """An answer without what depends on the moment and on the name of the memory."""
    return {k: v for k, v in answer_to_json(answer).items() if k not in ("latency_s", "memory_id")}


def test_a_memory_is_made_once_and_answers_as_a_replay_does(bag, tmp_path):
    first = remember(bag, JobSettings())
    one = asked(first)
    first.close()
    again = remember(bag, JobSettings())
    two = asked(again)
    again.close()
    assert (first.made, again.made) == (True, False)
    assert values(one) == values(two)
    assert again.start_ns == START_NS
    record = QuestionRecord(
        id="q",
        ask_ns=START_NS + 20 * SECOND_NS,
        text=TEXT,
        kind="existence",
        answer_type="BINARY",
        expected=Expected(binary=True),
        evidence=(EvidenceInterval(start_ns=START_NS, end_ns=START_NS + SECOND_NS),),
    )
    replayed = run_job(Job(bag, (record,), JobSettings(), tmp_path / "out"))
    assert values(replayed.answers[0].answer) == values(two)


def test_what_it_depends_on_names_it(bag, tmp_path):
    remember(bag, JobSettings()).close()
    moved = tmp_path / "elsewhere"
    shutil.copytree(bag, moved)
    assert content_digest(moved) == content_digest(bag)
    same = remember(moved, JobSettings(ground_z_m=0.3))
    same.close()
    assert not same.made
    for other in (JobSettings(frame_rate_hz=2.0), JobSettings(network=NetworkSettings(visual_tokens=256))):
        memory = remember(bag, other)
        memory.close()
        assert memory.made
    anew = remember(bag, JobSettings(), fresh=True)
    anew.close()
    assert anew.made


def test_other_code_makes_it_anew(bag, monkeypatch):
    remember(bag, JobSettings()).close()
    monkeypatch.setattr("salmonn_node.replay.recorded_memory.code_version", lambda: "0.0.9+0123456789ab")
    updated = remember(bag, JobSettings())
    updated.close()
    assert updated.made


def test_an_interrupted_one_leaves_nothing(bag):
    def stop(done_s: float, duration_s: float) -> None:
        if done_s > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        remember(bag, JobSettings(), on_progress=stop)
    assert not list(cache_root().iterdir())
    whole = remember(bag, JobSettings())
    whole.close()
    assert whole.made


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        remember(tmp_path / "nowhere", JobSettings())
    (tmp_path / "bag").mkdir()
    with pytest.raises(ValueError, match="this is no recording"):
        remember(tmp_path / "bag", JobSettings())
    assert not cache_root().exists() or not list(cache_root().iterdir())


def test_frames_of_tf_come_back_as_they_were():
    tree, rng = FrameTree(), np.random.default_rng(0)
    for second in range(1, 5):
        orientation = rng.normal(size=4)
        orientation /= np.linalg.norm(orientation)
        tree.add(Pose(second * SECOND_NS, "map", rng.normal(size=3), orientation, child_frame_id="base_link"))
    mount = Pose(0, "base_link", np.array([0.1, 0.0, 0.8]), np.array([0.0, 0.0, 0.0, 1.0]), child_frame_id="camera")
    tree.add(mount, static=True)
    other = FrameTree()
    other.restore(*tree.to_arrays())
    for stamp_ns in (SECOND_NS, round(2.5 * SECOND_NS), 4 * SECOND_NS):
        one, two = (t.lookup("map", "camera", stamp_ns) for t in (tree, other))
        assert one is not None
        assert two is not None
        assert np.array_equal(one.position, two.position)
        assert np.array_equal(one.orientation, two.orientation)
