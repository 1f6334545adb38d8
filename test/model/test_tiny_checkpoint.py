"""The checkpoint that comes with the package: what it is, that it says so, and that it answers the demo's questions."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from salmonn_node.answering.confidence import TypeName, read_calibration
from salmonn_node.evaluation.questions import read_questions
from salmonn_node.evaluation.scores import Judgement, judge
from salmonn_node.lab.world.mount import CAMERA_MOUNT, GROUND_Z_M
from salmonn_node.live.demo_recording import BAG, QUESTIONS
from salmonn_node.memory.stream_memory import StreamMemory
from salmonn_node.model.checkpoint import BUNDLED, TINY, load
from salmonn_node.model.event_parts import EVENT_HEADS, EVENT_NAMES, QUESTION_HEAD
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.replay.job import Job, JobSettings, run_job
from salmonn_node.replay.job_result import JobResult
from salmonn_node.stream.answers import ErrorCode, Outcome
from salmonn_node.stream.observations import SECOND_NS, AudioSpan, Frame

FOLDER = BUNDLED / TINY
MOST_PARAMETERS, MOST_BYTES = 4_000_000, 16_000_000
# Of 12 questions, of 10 answerable ones. 12 and 10 were seen.
LEAST_RIGHT, LEAST_EVIDENCE = 11, 9
START_NS = 1_000 * SECOND_NS


@pytest.fixture(scope="module")
def model() -> VideoSalmonnS:
    return load()


def test_it_is_trained_and_says_so_by_name(model: VideoSalmonnS) -> None:
    assert (model.checkpoint.trained, model.checkpoint.name) == (True, "tiny")
    assert "untrained" not in model.checkpoint.id
    assert model.checkpoint.missing == ()
    assert model.hears
    assert model.config.evidence_head
    assert model.config.ttt is not None
    assert load().checkpoint.id == model.checkpoint.id


def test_its_size(model: VideoSalmonnS) -> None:
    assert sum(p.numel() for p in model.network.parameters()) <= MOST_PARAMETERS
    files = {str(path.relative_to(FOLDER)): path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()}
    weights = {"model.safetensors", EVENT_HEADS, EVENT_NAMES, QUESTION_HEAD}
    assert set(files) == weights | {"README.md", "calibration.json", "config.json", "tokenizer.json"}
    assert sum(files.values()) <= MOST_BYTES
    assert all(bool(torch.isfinite(p).all()) for p in model.network.parameters())


def test_card_and_calibration_are_of_these_weights(model: VideoSalmonnS) -> None:
    card = model.checkpoint.card
    assert card is not None
    assert model.checkpoint.id in card.read_text(encoding="utf-8")
    assert model.checkpoint.calibration is not None
    calibration = read_calibration(model.checkpoint.calibration, model.checkpoint.id)
    assert set(calibration.temperature) == set(TypeName.__args__)
    assert calibration.null_above is not None
    assert calibration.questions >= 500
    assert json.loads((FOLDER / "config.json").read_text())["checkpoint"] == {"name": "tiny", "trained": True}


def filled(model: VideoSalmonnS, chunk: int) -> StreamMemory:
    """Forty seconds of noise, the sound in chunks of that many samples."""
    rng = np.random.default_rng(0)
    memory = model.new_memory()
    samples = rng.normal(0, 0.1, 40 * 16_000).astype(np.float32)
    pieces = [(i, samples[i : i + chunk]) for i in range(0, len(samples), chunk)]
    for t in range(40):
        while pieces and pieces[0][0] <= t * 16_000:
            begin, piece = pieces.pop(0)
            model.observe_audio(memory, AudioSpan(START_NS + begin * SECOND_NS // 16_000, "mic", piece))
        image = rng.integers(0, 255, (72, 128, 3), dtype=np.uint8)
        model.observe_frame(memory, Frame(START_NS + t * SECOND_NS, "front", image))
    for begin, piece in pieces:
        model.observe_audio(memory, AudioSpan(START_NS + begin * SECOND_NS // 16_000, "mic", piece))
    return memory


def test_cuts_of_the_stream_and_questions_change_no_byte_of_its_memory(model: VideoSalmonnS) -> None:
    memory = filled(model, 16_000)
    want, meta = memory.to_tensors()
    got, _ = filled(model, 7_777).to_tensors()
    assert want.keys() == got.keys()
    assert all(torch.equal(want[name], got[name]) for name in want)
    first, second = (model.answer("Have you seen a red ball?", model.view(memory), max_new_tokens=4) for _ in range(2))
    assert first.token_logprobs == second.token_logprobs
    after, meta_after = memory.to_tensors()
    assert meta == meta_after
    assert all(torch.equal(want[name], after[name]) for name in want)


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> JobResult:
    """The demo's bag through the node's own observer and answerer, the questions asked at its end."""
    settings = JobSettings(map_id="demo", mounts=(("front", CAMERA_MOUNT),), ground_z_m=GROUND_Z_M)
    result = run_job(Job(BAG, tuple(read_questions(QUESTIONS)), settings, tmp_path_factory.mktemp("demo")))
    assert not result.error
    return result


def judgements(result: JobResult) -> list[Judgement]:
    answers = {answered.id: answered.answer for answered in result.answers}
    return [judge(record, answers.get(record.id)) for record in read_questions(QUESTIONS)]


@pytest.mark.timeout(300)
def test_the_demos_questions_are_answered_right_with_the_right_evidence(replayed: JobResult) -> None:
    assert replayed.facts["trained"]
    judged = judgements(replayed)
    wrong = [j.record.text for j in judged if not j.correct]
    lost = [j.record.text for j in judged if j.evidence_hit is False]
    assert len(judged) == 12
    assert len(judged) - len(wrong) >= LEAST_RIGHT, f"wrong: {wrong}"
    assert sum(bool(j.evidence_hit) for j in judged) >= LEAST_EVIDENCE, f"other evidence: {lost}"


@pytest.mark.timeout(300)
def test_its_answers_carry_confidences_and_no_word_of_untrained_weights(replayed: JobResult) -> None:
    for answered in replayed.answers:
        answer = answered.answer
        assert answer.error_code == ErrorCode.NONE, answer.error_msg
        assert "untrained" not in answer.text
        assert (answer.outcome == Outcome.NOT_OBSERVED) == (not answer.evidence)
        if answer.outcome == Outcome.ANSWERED:
            assert 0.0 <= answer.confidence <= 1.0
