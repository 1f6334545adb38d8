"""Scores of a checkpoint on worlds never trained on: real memory, real answers, the project's one scorer."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from salmonn_node.answering.confidence import Calibration
from salmonn_node.model.generation import Generation
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.replay.questions import QuestionRecord
from salmonn_node.replay.scores import Judgement, abstention, judge
from salmonn_node.stream.answers import Answer, AnswerType, Outcome, Question
from salmonn_node.training.banked_observer import BankedObserver, answerer
from salmonn_node.training.lessons import evidence_rows, stamps_of
from salmonn_node.training.streams import Tokens
from salmonn_node.world.asking import ask


def records(tokens: Tokens, count: int, seed: int, name: str) -> list[QuestionRecord]:
    """Questions at the end of a stream."""
    return ask(tokens.truth, seed, count, name=name, times=[tokens.truth.seconds])


@dataclass(frozen=True)
class Answered:
    """An answer with what is known of it besides.

    Attributes:
        record: the question.
        answer: what came back.
        null_weight: the evidence head's weight of "nothing".
        kept: whether some token of the evidence was still in memory; None when unanswerable.
    """

    record: QuestionRecord
    answer: Answer
    null_weight: float
    kept: bool | None

    def judged(self, null_above: float | None = None) -> Judgement:
        """The judgement, had answers with a larger weight of "nothing" been held back."""
        answer = self.answer
        if null_above is not None and self.null_weight > null_above:
            answer = replace(answer, outcome=Outcome.NOT_OBSERVED)
        return judge(self.record, answer, self.kept)


class _Overheard:
    """A model whose last answer's null weight is kept."""

    def __init__(self, model: VideoSalmonnS) -> None:
        self._model, self.null_weight = model, math.nan

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def answer(self, *args: Any, **kwargs: Any) -> Generation:
        generation = self._model.answer(*args, **kwargs)
        self.null_weight = math.nan if generation.null_weight is None else generation.null_weight
        return generation


def answered(
    model: VideoSalmonnS,
    tokens: Tokens,
    asked: Sequence[QuestionRecord],
    calibration: Calibration | None = None,
) -> list[Answered]:
    """Let a stream flow through the node's memory, and ask at its end."""
    overheard = _Overheard(model)
    observer = BankedObserver(model)
    observer.take(tokens)
    observer.model = overheard  # type: ignore[assignment]
    speaker = answerer(observer, calibration)
    view = observer.look()
    stamps = stamps_of(view)
    out = []
    for record in asked:
        question = Question(record.text, AnswerType[record.answer_type], tuple(record.choices))
        answer = speaker.ask(question, deadline=time.monotonic() + 600.0, view=view)
        kept = bool(evidence_rows(record, stamps, tokens.truth.moments)) if record.answerable else None
        out.append(Answered(record, answer, overheard.null_weight, kept))
    return out


def table(judgements: Sequence[Judgement]) -> dict[str, float]:
    """The figures that the numbers of the checkpoint are given in."""
    answerable = [j for j in judgements if j.record.answerable]
    kept = [j for j in answerable if j.kept]

    def share(values: Sequence[bool | None]) -> float:
        return sum(bool(v) for v in values) / len(values) if values else math.nan

    return {
        "n": float(len(judgements)),
        "answerable": share([j.correct for j in answerable]),
        "abstention_f1": abstention(judgements)["f1"],
        "hit": share([j.evidence_hit for j in answerable]),
        "kept": share([j.kept for j in answerable]),
        "answerable_kept": share([j.correct for j in kept]),
    }
