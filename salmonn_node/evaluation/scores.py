"""Scores: judge each answer against the expected one, then build tables with bootstrap intervals."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.stream.answers import Answer, ErrorCode, Outcome
from salmonn_node.stream.observations import SECOND_NS, Interval

AGE_EDGES_S = (0.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 10800.0)
LENGTH_EDGES_S = (0.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 10800.0)


@dataclass(frozen=True)
class Judgement:
    """Judgement of one answer.

    Attributes:
        correct: the answer is right, or abstains and the question is unanswerable.
        abstained: the answer says "not observed". For unanswerable questions, "no" and 0 count too.
        error: name of the error code, empty if there is an answer. An error is never correct.
        confidence: probability given by the answerer, NaN if it gave none.
        position_error_m, time_error_s, duration_error_s: None if the type has no such error or the value is missing.
        evidence_iou: best overlap (IoU, 0..1) of a returned piece of evidence with an expected one.
        evidence_hit: some returned evidence overlaps some expected evidence. None if unanswerable.
        kept: some token of the evidence was still in memory. None if not measured.
    """

    record: QuestionRecord
    correct: bool
    abstained: bool
    error: str
    confidence: float
    position_error_m: float | None
    time_error_s: float | None
    duration_error_s: float | None
    evidence_iou: float | None
    evidence_hit: bool | None
    kept: bool | None
    latency_s: float


def normalise(text: str) -> str:
    """Normalise a text for comparison: lower case, only words and digits, no articles."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    return " ".join(w for w in words if w not in ("a", "an", "the"))


def text_matches(given: str, record: QuestionRecord) -> bool:
    """Whether a text is right: it contains an accepted wording and no other word of the vocabulary."""
    said = f" {normalise(given)} "
    accepted = {normalise(t) for t in (record.expected.text, *record.expected.accepted)} - {""}
    if said.strip() in accepted:
        return True
    hits = [a for a in accepted if f" {a} " in said]
    if not hits:
        return False
    rest = said
    for hit in sorted(hits, key=len, reverse=True):
        rest = rest.replace(f" {hit} ", "  ")
    if " not " in rest or " no " in rest:
        return False
    others = {normalise(v) for v in record.expected.vocabulary} - accepted - {""}
    return not any(f" {other} " in rest for other in others)


def time_error_s(answer: Interval, expected: Interval) -> float:
    """Seconds between two spans. Zero if the middle of the answer lies inside the expected span."""
    middle = (answer.start_ns + answer.end_ns) / 2
    if expected.start_ns <= middle <= expected.end_ns:
        return 0.0
    return min(abs(middle - expected.start_ns), abs(middle - expected.end_ns)) / SECOND_NS


def interval_iou(a: Interval, b: Interval) -> float:
    """Intersection over union of two spans. Instants count as one millisecond."""
    pad = SECOND_NS // 1000
    low, high = max(a.start_ns, b.start_ns), min(a.end_ns, b.end_ns) + pad
    union = max(a.end_ns, b.end_ns) + pad - min(a.start_ns, b.start_ns)
    return max(0, high - low) / union


def _typed(record: QuestionRecord, answer: Answer) -> tuple[bool, float | None, float | None, float | None]:
    """Return (right, position error, time error, duration error) for an answer that does not abstain."""
    expected, tolerance = record.expected, record.tolerance
    kind = record.answer_type
    if kind == "TEXT":
        return text_matches(answer.text, record), None, None, None
    if kind == "BINARY":
        return answer.binary == expected.binary, None, None, None
    if kind == "COUNT":
        return answer.count == expected.count, None, None, None
    if kind == "CHOICE":
        return answer.choice_index == expected.choice_index, None, None, None
    if kind == "POSITION":
        if answer.pose is None or expected.position_m is None:
            return False, None, None, None
        same_frame = answer.pose.frame_id == expected.frame_id
        error = float(np.linalg.norm(np.asarray(answer.pose.position)[:2] - np.asarray(expected.position_m)[:2]))
        right = same_frame and answer.pose_kind == record.pose_kind and error <= tolerance.position_m
        return right, error, None, None
    if kind == "TIME":
        if answer.event is None or expected.event_start_ns is None:
            return False, None, None, None
        end_ns = expected.event_end_ns if expected.event_end_ns is not None else expected.event_start_ns
        error = time_error_s(answer.event, Interval(expected.event_start_ns, end_ns))
        return error <= tolerance.time_s, None, error, None
    wanted = expected.duration_s or 0.0
    error = abs(answer.duration_s - wanted)
    return error <= max(tolerance.duration_s, tolerance.duration_fraction * wanted), None, None, error


def abstains(record: QuestionRecord, answer: Answer) -> bool:
    """Whether an answer abstains. For unanswerable questions, "no", 0 and "nothing" count as abstaining."""
    if answer.error_code != ErrorCode.NONE:
        return False
    if answer.outcome == Outcome.NOT_OBSERVED:
        return True
    if record.answerable or answer.outcome != Outcome.ANSWERED:
        return False
    if record.answer_type == "TEXT":
        return normalise(answer.text) in ("nothing", "none", "unknown", "not observed")
    return (record.answer_type == "BINARY" and not answer.binary) or (
        record.answer_type == "COUNT" and answer.count == 0
    )


def judge(record: QuestionRecord, answer: Answer | None, kept: bool | None = None) -> Judgement:
    """Judge one answer. None (no answer) and every error code are wrong."""
    error = "NO_ANSWER" if answer is None else ("" if answer.error_code == ErrorCode.NONE else answer.error_code.name)
    if answer is None or error:
        hit = False if record.answerable else None
        return Judgement(
            record, False, False, error, math.nan, None, None, None, 0.0 if record.answerable else None, hit, kept,
            math.nan if answer is None else answer.latency_s,
        )  # fmt: skip
    abstained = abstains(record, answer)
    position = time = duration = None
    if not record.answerable:
        correct = abstained
    elif abstained or answer.outcome != Outcome.ANSWERED:
        correct = False
    else:
        correct, position, time, duration = _typed(record, answer)
    iou = hit = None
    if record.answerable:
        pairs = [(e.interval, x.interval) for e in answer.evidence for x in record.evidence]
        iou = max((interval_iou(a, b) for a, b in pairs), default=0.0)
        hit = any(a.overlaps(b) for a, b in pairs)
    return Judgement(
        record, correct, abstained, "", answer.confidence, position, time, duration, iou, hit, kept, answer.latency_s
    )


def bootstrap(
    judgements: Sequence[Judgement],
    value: Callable[[Sequence[Judgement]], float],
    *,
    samples: int = 500,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Bootstrap percentile interval of `value`. Resamples streams if there are at least five, else questions."""
    if not judgements:
        return math.nan, math.nan
    groups: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        groups.setdefault(judgement.record.stream, []).append(judgement)
    units = list(groups.values()) if len(groups) >= 5 else [[j] for j in judgements]
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(samples):
        picks = generator.integers(0, len(units), len(units))
        values.append(value([j for i in picks for j in units[i]]))
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _mean(values: Iterable[float | bool | None]) -> float:
    known = [float(v) for v in values if v is not None and not math.isnan(float(v))]
    return float(np.mean(known)) if known else math.nan


def accuracy(judgements: Sequence[Judgement]) -> float:
    """Share of right answers. NaN if there are no answers."""
    return _mean(j.correct for j in judgements)


def abstention(judgements: Sequence[Judgement]) -> dict[str, float]:
    """Precision, recall and F1 of abstaining, where the positive class is "unanswerable"."""
    said = sum(j.abstained for j in judgements)
    should = sum(not j.record.answerable for j in judgements)
    both = sum(j.abstained and not j.record.answerable for j in judgements)
    precision = both / said if said else math.nan
    recall = both / should if should else math.nan
    f1 = 2 * both / (said + should) if said + should else math.nan
    return {"precision": precision, "recall": recall, "f1": f1}


def calibration(judgements: Sequence[Judgement], bins: int = 10) -> dict[str, object]:
    """Calibration error over equal-width bins, and the reliability curve. Skips answers without confidence."""
    known = [j for j in judgements if not math.isnan(j.confidence)]
    curve, ece = [], 0.0
    for low in np.arange(bins) / bins:
        inside = [
            j for j in known if low <= j.confidence < low + 1 / bins or (j.confidence >= 1 and low + 1 / bins >= 1)
        ]
        if inside:
            confidence, right = _mean(j.confidence for j in inside), accuracy(inside)
            curve.append({"low": float(low), "n": len(inside), "confidence": confidence, "accuracy": right})
            ece += len(inside) / len(known) * abs(confidence - right)
    return {"ece": ece if known else math.nan, "n": len(known), "curve": curve}


def _row(judgements: Sequence[Judgement], samples: int, seed: int) -> dict[str, object]:
    low, high = bootstrap(judgements, accuracy, samples=samples, seed=seed)
    answerable = [j for j in judgements if j.record.answerable]
    kept = [j for j in answerable if j.kept]
    return {
        "n": len(judgements),
        "accuracy": accuracy(judgements),
        "low": low,
        "high": high,
        "answerable": accuracy(answerable),
        "unanswerable": accuracy([j for j in judgements if not j.record.answerable]),
        "evidence_hit": _mean(j.evidence_hit for j in answerable),
        "evidence_iou": _mean(j.evidence_iou for j in answerable),
        "kept": _mean(j.kept for j in answerable),
        "accuracy_given_kept": accuracy(kept),
    }


def _binned(
    judgements: Sequence[Judgement], value: Callable[[Judgement], float | None], edges: Sequence[float]
) -> dict[str, list[Judgement]]:
    bins: dict[str, list[Judgement]] = {}
    for low, high in zip(edges, (*edges[1:], math.inf), strict=True):
        inside = [j for j in judgements if (v := value(j)) is not None and low <= v < high]
        if inside:
            bins[f"{low:g}-{high:g} s" if math.isfinite(high) else f"{low:g}- s"] = inside
    return bins


def score(
    judgements: Sequence[Judgement],
    *,
    samples: int = 500,
    seed: int = 0,
    age_edges_s: Sequence[float] = AGE_EDGES_S,
    length_edges_s: Sequence[float] = LENGTH_EDGES_S,
) -> dict[str, object]:
    """Compute all tables of one arm as JSON values. NaN means that there is nothing to measure.

    Args:
        judgements: one per question. Every question counts.
        samples: number of bootstrap resamples.
        seed: seed of the bootstrap.
        age_edges_s: lower edges of the bins of evidence age, in seconds.
        length_edges_s: lower edges of the bins of stream length, in seconds.
    """
    kinds = sorted({j.record.kind for j in judgements})
    ages = _binned(judgements, lambda j: j.record.evidence_age_s, age_edges_s)
    lengths = _binned(judgements, lambda j: j.record.stream_s, length_edges_s)
    errors: dict[str, int] = {}
    for judgement in judgements:
        if judgement.error:
            errors[judgement.error] = errors.get(judgement.error, 0) + 1
    return {
        "all": _row(judgements, samples, seed),
        "by_kind": {k: _row([j for j in judgements if j.record.kind == k], samples, seed) for k in kinds},
        "by_age": {k: _row(v, samples, seed) for k, v in ages.items()},
        "by_length": {k: _row(v, samples, seed) for k, v in lengths.items()},
        "position_error_m": _mean(j.position_error_m for j in judgements),
        "time_error_s": _mean(j.time_error_s for j in judgements),
        "duration_error_s": _mean(j.duration_error_s for j in judgements),
        "abstention": abstention(judgements),
        "calibration": calibration(judgements),
        "latency_s": _mean(j.latency_s for j in judgements),
        "errors": errors,
    }
