"""A memory that an earlier version stored: it loads, answers as it did then, and goes on with the stream."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import salmonn_node
from salmonn_node.answering.answerer import Answerer
from salmonn_node.ingest.observer import Observer
from salmonn_node.live.demo_recording import BAG
from salmonn_node.model.checkpoint import load
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.replay.bag_stream import BagStream
from salmonn_node.storage.persistence import Persistence, identity_of
from salmonn_node.storage.restore import RestoreReport
from salmonn_node.storage.store import MemoryStore
from salmonn_node.stream.answers import AnswerType, Question
from salmonn_node.stream.observations import SECOND_NS, Pose

DATA = Path(__file__).parents[1] / "data" / "stored_memory"
EXPECTED = json.loads((DATA / "expected.json").read_text())
EARLIER = "808d60af53b0"
TINY = Path(salmonn_node.__file__).parent / "checkpoints" / "tiny"
# Observations of the journal are encoded again, on a machine whose last bits may be others.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> VideoSalmonnS:
    """The tiny network as it was then: its token memory was cut back by larger steps, which is part of its identity."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    shutil.copytree(TINY, folder)
    for name, now, then in (
        ("config.json", '"visual_step": 32', '"visual_step": 128'),
        ("calibration.json", load("tiny").checkpoint.id, EARLIER),
    ):
        text = (folder / name).read_text()
        assert now in text
        (folder / name).write_text(text.replace(now, then))
    model = load(str(folder))
    assert model.checkpoint.id == EARLIER
    return model


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with tarfile.open(DATA / "memories.tar.xz") as archive:
        archive.extractall(tmp_path)
    return tmp_path / "memories"


class Loaded:
    """One of the stored memories with an observer that goes on from it."""

    def __init__(self, root: Path, name: str, model: VideoSalmonnS) -> None:
        self.store = MemoryStore(root, name, identity_of(model), sync_period_s=0.0)
        self.observer = Observer(model, evidence=self.store.evidence, inline=True)
        self.persistence = Persistence(self.observer, self.store, snapshot_period_s=0.0)
        self.report: RestoreReport = self.persistence.restore()

    def notes(self) -> list[str]:
        """What the restore reports, but for the machine, which is another one than that of then."""
        return [note for note in self.report.notes if "was written elsewhere" not in note]

    def close(self) -> None:
        self.observer.close()
        self.persistence.close()


def recording() -> Iterator[Any]:
    """The demo's observations as the earlier version was given them: every pose_step_s a pose."""
    last_pose_ns = 0
    with BagStream(BAG) as bag:
        for _, observation in bag:
            if isinstance(observation, Pose):
                if observation.stamp_ns - last_pose_ns < EXPECTED["stream"]["pose_step_s"] * SECOND_NS:
                    continue
                last_pose_ns = observation.stamp_ns
            yield observation


def moments_digest(observer: Observer) -> str:
    """SHA-256 over all moments with their pictures and poses; the earlier version did not settle other poses."""
    digest = hashlib.sha256()
    for moment in observer.evidence.between():
        pose = observer.evidence.pose(moment.pose_id)
        seen = (moment.modality, moment.token_start, moment.token_end, moment.interval, moment.source, moment.frame_id)
        where = None if pose is None else (pose.stamp_ns, pose.frame_id, pose.map_id)
        digest.update(repr((seen, where)).encode() + moment.thumbnail)
        if pose is not None:
            digest.update(pose.position.tobytes() + pose.orientation.tobytes())
    return digest.hexdigest()


def assert_as_expected(observer: Observer, expected: dict[str, Any]) -> None:
    intake = observer.intake
    assert observer.memory_id == expected["memory_id"]
    assert [intake.frames, round(intake.audio_s, 6), intake.poses] == expected["counts"]
    assert [observer.start_ns, observer.newest_ns] == [expected["start_ns"], expected["newest_ns"]]
    assert observer.evidence.sizes() == expected["sizes"]
    assert moments_digest(observer) == expected["moments"]
    every, _ = observer.memory.to_tensors()
    # The earlier version kept no events beside the tokens.
    tensors = {name: tensor for name, tensor in every.items() if not name.startswith("events.")}
    assert observer.memory.events is not None
    assert observer.memory.events.partial
    assert sorted(tensors) == sorted(expected["tensors"])
    for name, tensor in tensors.items():
        shape, dtype, *content = expected["tensors"][name]
        assert (list(tensor.shape), str(tensor.dtype)) == (shape, dtype), name
        if tensor.is_floating_point():
            wide = tensor.double()
            found = [float(wide.sum()), float(wide.abs().sum())]
            assert found == pytest.approx(content, rel=TOLERANCE, abs=TOLERANCE * content[1]), name
        else:
            assert hashlib.sha256(tensor.numpy().tobytes()).hexdigest() == content[0], name


def assert_answers(observer: Observer, expected: list[dict[str, Any]]) -> None:
    answerer = Answerer(observer)
    for then in expected:
        question = Question(then["question"], AnswerType[then["type"]])
        now = answerer.ask(question, deadline=time.monotonic() + 200.0)
        evidence = [[e.modality, e.source, e.interval.start_ns, e.interval.end_ns] for e in now.evidence]
        assert (now.outcome.name, now.text, evidence) == (then["outcome"], then["text"], then["evidence"])
        assert now.confidence == pytest.approx(then["confidence"], abs=0.01, nan_ok=True)


def test_a_memory_of_an_earlier_version_answers_and_goes_on(root: Path, model: VideoSalmonnS):
    memory = Loaded(root, "m", model)
    assert (memory.report.snapshot, memory.notes()) == (1, [])
    assert memory.report.records > 0
    assert_as_expected(memory.observer, EXPECTED["stored"])
    assert_answers(memory.observer, EXPECTED["answers"])
    first_ns, end_s, go_on_s = (EXPECTED["stream"][name] for name in ("first_ns", "end_s", "go_on_s"))
    for observation in recording():
        at_s = (observation.stamp_ns - first_ns) / SECOND_NS
        if at_s >= go_on_s:
            break
        if at_s >= end_s:
            memory.observer.submit(observation)
    assert_as_expected(memory.observer, EXPECTED["later"])
    assert_answers(memory.observer, EXPECTED["answers_later"])
    memory.close()


def test_the_session_before_that_an_earlier_version_kept_loads(root: Path, model: VideoSalmonnS):
    memory = Loaded(root, "m-previous", model)
    assert (memory.report.snapshot, memory.notes()) == (1, [])
    assert_as_expected(memory.observer, EXPECTED["previous"])
    memory.close()
