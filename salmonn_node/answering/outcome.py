"""Outcome of a question: answered, not observed, or ambiguous between two places or times that fit equally well."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from salmonn_node.answering.confidence import Calibration
from salmonn_node.stream.answers import AnswerType, Evidence, Outcome
from salmonn_node.stream.observations import SECOND_NS

# Threshold for a trained evidence head without a calibration: "nothing" has more weight than the whole memory.
NULL_ABOVE = 0.5


def strength(evidence: Sequence[Evidence], null_weight: float | None) -> float:
    """Strength of the evidence, 0..1: highest score times the head's weight of "something"; 0 without evidence."""
    return max((e.score for e in evidence), default=0.0) * (1 - (null_weight or 0.0))


def outcome_of(
    kind: AnswerType,
    evidence: Sequence[Evidence],
    null_weight: float | None,
    *,
    trained: bool,
    calibration: Calibration | None = None,
) -> Outcome:
    """Decide the outcome of an answer of type `kind` from its evidence.

    Without evidence the outcome is NOT_OBSERVED, whatever the text says. The thresholds for strength and ambiguity
    apply only with a calibration, because the attention of an untrained or unmeasured network means nothing. Without
    a calibration, a trained evidence head is trusted when it gives "nothing" more weight than the whole memory.

    Only TIME and POSITION can be ambiguous. The other types may use several pieces of evidence at once.

    Args:
        kind: type of the answer.
        evidence: strongest first, before it is cut to the requested number.
        null_weight: the evidence head's weight of "nothing", None without the head.
        trained: whether the weights are trained.
        calibration: calibration of these weights.
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
    """Index of the first piece of evidence that fits about as well as the strongest but lies far from it, or None."""
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
    """Gap between two intervals in seconds; 0 when they overlap."""
    gap = max(one.interval.start_ns, other.interval.start_ns) - min(one.interval.end_ns, other.interval.end_ns)
    return max(0, gap) / SECOND_NS


def _metres(one: Evidence, other: Evidence) -> float:
    """Distance in metres between two robot poses; 0 when one is unknown, infinite between different maps or frames."""
    if one.pose is None or other.pose is None:
        return 0.0
    if (one.pose.frame_id, one.pose.map_id) != (other.pose.frame_id, other.pose.map_id):
        return math.inf
    return float(np.linalg.norm(np.asarray(one.pose.position) - np.asarray(other.pose.position)))
