"""Whether there is an answer at all: observed, not observed, or two places or times that fit equally well."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from salmonn_node.answering.confidence import Calibration
from salmonn_node.stream.answers import AnswerType, Evidence, Outcome
from salmonn_node.stream.observations import SECOND_NS

# What a trained evidence head says without a calibration: "nothing" outweighs all of memory.
NULL_ABOVE = 0.5


def strength(evidence: Sequence[Evidence], null_weight: float | None) -> float:
    """0..1: the strongest evidence's share, times the evidence head's weight of "something"; 0 without evidence."""
    return max((e.score for e in evidence), default=0.0) * (1 - (null_weight or 0.0))


def outcome_of(
    kind: AnswerType,
    evidence: Sequence[Evidence],
    null_weight: float | None,
    *,
    trained: bool,
    calibration: Calibration | None = None,
) -> Outcome:
    """What the evidence of an answer of type `kind` amounts to.

    Without evidence nothing was observed, whatever the text says. Thresholds on its strength, and ambiguity, apply only
    where a calibration gives them: what an untrained or unmeasured network attends to means nothing. A trained evidence
    head alone is believed when it says that "nothing" is likelier than all of memory together.

    Only a TIME and a POSITION can be ambiguous: the other types may rest on several pieces of evidence at once.

    Args:
        kind: type of the answer.
        evidence: strongest first, before it is cut to the number asked for.
        null_weight: the evidence head's weight of "nothing", None without the head.
        trained: whether the weights are.
        calibration: of these weights.
    """
    if not evidence:
        return Outcome.NOT_OBSERVED
    null_above = NULL_ABOVE if trained else None
    if calibration is not None:
        null_above = calibration.null_above
    if null_above is not None and null_weight is not None and null_weight > null_above:
        return Outcome.NOT_OBSERVED
    if calibration is None:
        return Outcome.ANSWERED
    weakest = calibration.weakest_evidence
    if weakest is not None and strength(evidence, null_weight) < weakest:
        return Outcome.NOT_OBSERVED
    if rival(kind, evidence, calibration) is not None:
        return Outcome.AMBIGUOUS
    return Outcome.ANSWERED


def rival(kind: AnswerType, evidence: Sequence[Evidence], calibration: Calibration) -> int | None:
    """Which piece of evidence fits about as well as the first but lies far from it; None when there is none."""
    ratio = calibration.ambiguous_ratio
    if ratio is None or kind not in (AnswerType.TIME, AnswerType.POSITION):
        return None
    first = evidence[0]
    for number, other in enumerate(evidence[1:], 1):
        if other.score < ratio * first.score:
            continue
        apart = _metres(first, other) if kind == AnswerType.POSITION else _seconds(first, other)
        if apart > (calibration.far_m if kind == AnswerType.POSITION else calibration.far_s):
            return number
    return None


def _seconds(one: Evidence, other: Evidence) -> float:
    """Gap between two intervals, 0 when they overlap."""
    gap = max(one.interval.start_ns, other.interval.start_ns) - min(one.interval.end_ns, other.interval.end_ns)
    return max(0, gap) / SECOND_NS


def _metres(one: Evidence, other: Evidence) -> float:
    """Distance of two observers' poses; 0 where it is not known, infinite between two maps or frames."""
    if one.pose is None or other.pose is None:
        return 0.0
    if (one.pose.frame_id, one.pose.map_id) != (other.pose.frame_id, other.pose.map_id):
        return math.inf
    return float(np.linalg.norm(np.asarray(one.pose.position) - np.asarray(other.pose.position)))
