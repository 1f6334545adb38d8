"""The answerer never raises: each question comes back as an answer with evidence, or with the reason why not."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from salmonn_node.answering.answerer import Answerer
from salmonn_node.ingest.observer import Observer
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Outcome, Question
from salmonn_node.stream.observations import SECOND_NS as S
from salmonn_node.stream.observations import AudioChunk, Frame, Pose

START = 1_700_000_000 * S


@pytest.fixture(scope="module")
def answerer() -> Answerer:
    observer = Observer(VideoSalmonnS.tiny(), inline=True)
    rng = np.random.default_rng(0)
    for t in range(20):
        stamp = START + t * S
        observer.submit(Pose(stamp, "map", np.array([t, 1.0, 0.0]), np.array([0.0, 0.0, 0.0, 1.0]), None, "home"))
        observer.submit(Frame(stamp, "front", rng.integers(0, 255, (48, 64, 3), dtype=np.uint8), "front_optical"))
        observer.submit(AudioChunk(stamp, "mic", rng.normal(0, 0.1, (16_000, 1)).astype(np.float32), 16_000, "mic"))
    return Answerer(observer, max_new_tokens=4)


def ask(answerer: Answerer, question: Question, seconds: float = 60.0, cancel: threading.Event | None = None) -> Answer:
    return answerer.ask(question, deadline=time.monotonic() + seconds, cancel=cancel)


@pytest.mark.parametrize("kind", list(AnswerType))
def test_every_type_is_answered_with_evidence_that_can_be_checked(answerer: Answerer, kind: AnswerType) -> None:
    choices = ("red", "blue") if kind == AnswerType.CHOICE else ()
    answer = ask(answerer, Question("Where is the red box?", kind, choices, want_thumbnails=True))
    assert answer.error_code == ErrorCode.NONE, answer.error_msg
    assert answer.answer_type == (AnswerType.POSITION if kind == AnswerType.ANY else kind)
    assert "untrained weights" in answer.text
    assert answer.memory_id == answerer.observer.memory_id
    assert (answer.memory_start_ns, answer.last_observation_ns) == (START, START + 19 * S)
    assert math.isnan(answer.confidence)
    assert answer.latency_s > 0
    if answer.outcome == Outcome.ANSWERED:
        assert answer.evidence
    scores = [e.score for e in answer.evidence]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) <= 1.0 + 1e-6
    for evidence in answer.evidence:
        assert evidence.source == ("front" if evidence.modality == "vision" else "mic")
        assert START <= evidence.interval.start_ns <= evidence.interval.end_ns <= START + 20 * S
        assert evidence.pose is not None
        assert evidence.pose.map_id == "home"
        assert bool(evidence.thumbnail) == (evidence.modality == "vision")


def test_the_same_question_has_the_same_answer(answerer: Answerer) -> None:
    one, two = (replace(ask(answerer, Question("What did you see?")), latency_s=0.0) for _ in range(2))
    assert repr(one) == repr(two)


def test_window_sources_and_number_of_evidence_are_kept_to(answerer: Answerer) -> None:
    after, before = START + 4 * S, START + 11 * S
    window = ask(answerer, Question("What did you see?", after_ns=after, before_ns=before))
    assert window.evidence
    assert all(after <= e.interval.start_ns <= e.interval.end_ns <= before for e in window.evidence)
    heard = ask(answerer, Question("What did you hear?", sources=("mic",), max_evidence=1))
    assert [e.source for e in heard.evidence] == ["mic"]


@pytest.mark.parametrize(
    ("question", "word"),
    [
        (Question("  "), "text"),
        (Question("x" * 1_000_000), "text"),
        (Question("a?", AnswerType.CHOICE), "choices"),
        (Question("a?", AnswerType.CHOICE, ("a", " ")), "choices"),
        (Question("a?", AnswerType.CHOICE, ("a", "b", " a")), "choices must differ"),
        (Question("a?", after_ns=2, before_ns=1), "after"),
        (Question("a?", before_ns=-1), "before"),
        (Question("a?", timeout_s=-1.0), "timeout"),
        (Question("a?", timeout_s=math.nan), "timeout"),
        (Question("a?", max_evidence=-1), "max_evidence"),
        (Question("a?", sources=("attic",)), "attic"),
        (Question("a?", 77), "answer_type"),  # type: ignore[arg-type]
    ],
)
def test_a_bad_question_is_refused_by_field(answerer: Answerer, question: Question, word: str) -> None:
    answer = ask(answerer, question)
    assert answer.error_code == ErrorCode.INVALID_REQUEST
    assert word in answer.error_msg


def test_an_empty_window_an_unknown_frame_a_late_and_a_canceled_question(answerer: Answerer) -> None:
    empty = ask(answerer, Question("a?", after_ns=1, before_ns=START - S))
    assert empty.error_code == ErrorCode.EMPTY_MEMORY
    frame = ask(answerer, Question("where?", AnswerType.POSITION, target_frame="mars"))
    assert (frame.error_code, "mars" in frame.error_msg) == (ErrorCode.TRANSFORM_ERROR, True)
    assert ask(answerer, Question("a?"), seconds=0.0).error_code == ErrorCode.TIMEOUT
    cancel = threading.Event()
    cancel.set()
    assert ask(answerer, Question("a?"), cancel=cancel).error_code == ErrorCode.CANCELED


def test_a_failing_network_is_an_answer_too(answerer: Answerer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(answerer.observer.model, "answer", fail)
    answer = ask(answerer, Question("a?"))
    assert (answer.error_code, answer.error_msg) == (ErrorCode.MODEL_ERROR, "RuntimeError: out of memory")


def test_questions_before_anything_was_observed() -> None:
    answerer = Answerer(Observer(VideoSalmonnS.tiny(), inline=True))
    assert ask(answerer, Question("a?")).error_code == ErrorCode.EMPTY_MEMORY


def test_a_window_that_is_not_over_is_waited_for_until_the_deadline() -> None:
    observer = Observer(VideoSalmonnS.tiny())
    observer.submit(Frame(START, "front", np.zeros((48, 64, 3), np.uint8)))
    answer = ask(Answerer(observer), Question("a?", before_ns=START + 99 * S), seconds=0.2)
    assert answer.error_code == ErrorCode.TIMEOUT
    assert "had not reached" in answer.error_msg
    observer.close()
