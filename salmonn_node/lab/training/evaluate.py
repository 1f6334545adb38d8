"""Evaluate a checkpoint on held-out worlds, with the real memory, real answers and the project's scorer."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from salmonn_node.answering.confidence import Calibration
from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.evaluation.scores import Judgement, abstention, judge
from salmonn_node.lab.training.banked_observer import BankedObserver, answerer
from salmonn_node.lab.training.evidence_tokens import evidence_rows, stamps_of
from salmonn_node.lab.training.streams import Tokens
from salmonn_node.lab.training.told_questions import ToldQuestions
from salmonn_node.lab.world.asking import ask
from salmonn_node.lab.world.oracle import Oracle
from salmonn_node.model.generation import Generation
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.stream.answers import Answer, AnswerType, Outcome


def records(tokens: Tokens, count: int, seed: int, name: str) -> list[QuestionRecord]:
    """Draw questions at the end of a stream."""
    return ask(tokens.truth, seed, count, name=name, times=[tokens.truth.seconds])


@dataclass(frozen=True)
class ScoredAnswer:
    """An answer with further values for scoring.

    Attributes:
        record: the question.
        answer: the answer.
        null_weight: weight of "nothing" from the evidence head.
        kept: whether some token of the evidence was still in memory. None if unanswerable.
    """

    record: QuestionRecord
    answer: Answer
    null_weight: float
    kept: bool | None

    def judged(self, null_above: float | None = None) -> Judgement:
        """Judge the answer. If its weight of "nothing" exceeds `null_above`, it counts as NOT_OBSERVED."""
        answer = self.answer
        if null_above is not None and self.null_weight > null_above:
            answer = replace(answer, outcome=Outcome.NOT_OBSERVED)
        return judge(self.record, answer, self.kept)


class _Overheard:
    """A model that records the null weight of its last answer."""

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
    sources: tuple[str, ...] = (),
    told: bool = False,
) -> list[ScoredAnswer]:
    """Run a stream through the node's memory, and ask at its end.

    Args:
        model: the network.
        tokens: the stream.
        asked: the questions.
        calibration: by default the checkpoint's.
        sources: sources that may be read (empty: all).
        told: tell answers from events what is asked, instead of letting them read the words.
    """
    overheard = _Overheard(model)
    observer = BankedObserver(model)
    observer.take(tokens)
    observer.model = overheard  # type: ignore[assignment]
    speaker = answerer(observer, calibration)
    oracle = ToldQuestions(model, model.event_parts) if told and model.event_parts is not None else None
    speaker.events = speaker.events if oracle is None else oracle
    view = observer.wait_for_view(sources=sources)
    stamps = stamps_of(view)
    out = []
    for record in asked:
        question = record.question(limited=False)
        overheard.null_weight = math.nan  # an answer from events has none
        if oracle is not None:
            oracle.record = record
        answer = speaker.ask(question, deadline=time.monotonic() + 600.0, view=view)
        kept = bool(evidence_rows(record, stamps, tokens.truth.moments)) if record.answerable else None
        out.append(ScoredAnswer(record, answer, overheard.null_weight, kept))
    return out


def perfect(tokens: Tokens, asked: Sequence[QuestionRecord]) -> list[ScoredAnswer]:
    """Answer from the truth of the stream: the oracle of the world. A check of questions and scorer; must be 1.0."""
    oracle = Oracle(tokens.truth)
    return [ScoredAnswer(record, oracle(record), math.nan, None) for record in asked]


def blind(asked: Sequence[QuestionRecord]) -> list[ScoredAnswer]:
    """Answer each question with the most common right answer to its form. Never answers where or when.

    This is the best that one can do without seeing or hearing, knowing the answers to these very questions.
    """
    forms: dict[str, Counter[str]] = {}
    for record in asked:
        if record.answerable:
            forms.setdefault(record.about["template"], Counter())[_said(record)] += 1
    said = {form: counts.most_common(1)[0][0] for form, counts in forms.items()}
    out = []
    for record in asked:
        text = said.get(record.about["template"], "")
        kind = AnswerType[record.answer_type]
        answer = Answer(answer_type=kind, outcome=Outcome.ANSWERED if text else Outcome.NOT_OBSERVED, text=text)
        if kind == AnswerType.BINARY:
            answer = replace(answer, binary=text == "yes")
        elif kind == AnswerType.COUNT:
            answer = replace(answer, count=int(text or 0))
        elif kind == AnswerType.CHOICE and text in record.choices:
            answer = replace(answer, choice_index=record.choices.index(text))
        elif kind == AnswerType.DURATION:
            answer = replace(answer, duration_s=float(text or 0))
        out.append(ScoredAnswer(record, answer, math.nan, None))
    return out


def _said(record: QuestionRecord) -> str:
    expected = record.expected
    if record.answer_type == "COUNT":
        return str(expected.count)
    return str(expected.duration_s) if record.answer_type == "DURATION" else str(expected.text)


def table(judgements: Sequence[Judgement]) -> dict[str, float]:
    """Return the figures that we report for a checkpoint."""
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
