"""Fit a calibration to a team's own questions: temperatures, the rule of abstention, heads; and cross-validate it.

Each question is judged by a calibration that was fitted without it. A question that was made of another by exchanging
a thing stays in the other's fold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from salmonn_node.answering.abstention import Observed, SignName, f1, fit, held_back
from salmonn_node.answering.confidence import Calibration, calibration_error, fit_temperature
from salmonn_node.evaluation.head_choice import Located, chosen_heads
from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.evaluation.scores import Judgement
from salmonn_node.stream.answers import AnswerType

FOLDS = 5
FEW = 10  # fewer answers of one type share a temperature with the other types


@dataclass(frozen=True)
class JudgedAnswer:
    """A question that was asked with nothing held back.

    Attributes:
        record: the question.
        origin: id of the question that it was made of, else its own.
        judged: judgement of the answer. Its confidence is the raw probability.
        signs: signs of the answer, None for a network with an evidence head and for types that have none.
        located: where its evidence lies and what the network tells about it, None for a network with an evidence head
            and for questions without evidence.
    """

    record: QuestionRecord
    origin: str
    judged: Judgement
    signs: dict[SignName, float] | None
    located: Located | None = None


@dataclass(frozen=True)
class Quality:
    """Figures of a calibration on questions that it was not fitted on.

    Attributes:
        f1: F1 of abstaining.
        right: share of answerable questions with a right answer.
        wrong: share of given answers that are wrong.
        error: expected calibration error of the confidences, NaN if there are none.
        hit: share of questions with known evidence whose strongest window meets it, NaN if there are none.
    """

    f1: float
    right: float
    wrong: float
    error: float
    hit: float


def fitted(asked: Sequence[JudgedAnswer], base: Calibration, rule: bool = True) -> Calibration:
    """Fit temperatures and the rule of abstention, and choose heads. Everything else stays as in `base`.

    Args:
        asked: the judged answers.
        base: the calibration that is there.
        rule: whether to fit a rule of abstention. If not, the default rule holds.

    Raises:
        ValueError: too few answers to fit on; the message says of which kind.
    """
    signs = [a for a in asked if a.signs is not None]
    observed = base.observed if rule else None
    if signs and rule:
        observed = fit([a.signs for a in signs if a.signs is not None], [a.record.answerable for a in signs])
    given = [a for a in asked if not abstains(a, observed) and not math.isnan(a.judged.confidence)]
    if len(given) < FEW:
        raise ValueError(f"expected at least {FEW} answers to fit a temperature, got {len(given)}")
    common = _temperature(given)
    temperature = {}
    for kind in sorted({a.record.answer_type for a in given}):
        mine = [a for a in given if a.record.answer_type == kind]
        temperature[kind] = _temperature(mine) if len(mine) >= FEW else common
    heads = tuple(chosen_heads([a.located for a in asked if a.located is not None]))
    found = {"temperature": temperature, "observed": observed, "heads": heads, "questions": len(asked)}
    return base.model_copy(update=found)


def abstains(asked: JudgedAnswer, observed: Observed | None) -> bool:
    """Whether an answer is held back: by its own words, or by the rule. None: the default rule."""
    if asked.judged.abstained or asked.signs is None:
        return asked.judged.abstained
    if observed is None:
        return held_back(asked.signs)
    return observed.probability(asked.signs) < observed.least


def before_and_after(
    asked: Sequence[JudgedAnswer], base: Calibration, rule: bool = True, folds: int = FOLDS
) -> tuple[Quality, Quality]:
    """Quality without a calibration, and with calibrations that were each fitted on the other folds.

    `rule` is that of `fitted`.

    Raises:
        ValueError: as `fitted`.
    """
    names = sorted({a.origin for a in asked})
    fold = {name: number % folds for number, name in enumerate(names)}
    kept_back = np.zeros(len(asked), bool)
    confidence, hit = np.full(len(asked), np.nan), np.full(len(asked), np.nan)
    for number in range(folds):
        others = [a for a in asked if fold[a.origin] != number]
        made = fitted(others, base, rule)
        for i, a in enumerate(asked):
            if fold[a.origin] == number:
                kept_back[i] = abstains(a, made.observed)
                confidence[i] = made.confidence(AnswerType[a.record.answer_type], a.judged.confidence)
                hit[i] = np.nan if a.located is None else a.located.found(made.heads)
    plain = np.array([abstains(a, None) for a in asked])
    raw = np.array([a.judged.confidence for a in asked])
    all_heads = np.array([np.nan if a.located is None else a.located.found() for a in asked])
    return _quality(asked, plain, raw, all_heads), _quality(asked, kept_back, confidence, hit)


def _quality(asked: Sequence[JudgedAnswer], kept_back: np.ndarray, confidence: np.ndarray, hit: np.ndarray) -> Quality:
    answerable = np.array([a.record.answerable for a in asked])
    right = np.array([a.judged.correct for a in asked]) & ~kept_back
    given = ~kept_back
    known = given & np.isfinite(confidence)
    return Quality(
        f1(kept_back, ~answerable),
        float(right[answerable].mean()) if answerable.any() else math.nan,
        float((~right)[given].mean()) if given.any() else math.nan,
        calibration_error(confidence[known].tolist(), right[known].tolist()) if known.any() else math.nan,
        float(np.nanmean(hit)) if np.isfinite(hit).any() else math.nan,
    )


def _temperature(asked: Sequence[JudgedAnswer]) -> float:
    found = fit_temperature([a.judged.confidence for a in asked], [a.judged.correct for a in asked])
    return round(found, 3)
