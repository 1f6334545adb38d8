"""What the report shows of each question: answer, evidence, and why a wrong one is wrong as far as the memory tells."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from salmonn_node.evaluation.evidence_picture import picture_of
from salmonn_node.evaluation.held import HeldTokens
from salmonn_node.evaluation.wording import answer_text, clock, expected_text, span
from salmonn_node.stream.observations import Interval

if TYPE_CHECKING:
    from salmonn_node.evaluation.report import ReportEntry

# Name -> what it says of a wrong answer, in the order in which the page lists them.
CAUSES = {
    "error": "no answer came",
    "invented": "the recording holds nothing that answers it",
    "forgotten": "the memory held too little of the true moment when it was asked",
    "not found": "the memory held the true moment, and the answer rests on another",
    "misread": "the answer rests on the true moment, and says something else",
    "not measured": "it is not known what the memory held",
}
TRACK_WIDTH, TRACK_HEIGHT = 600.0, 44.0


def row_of(entry: ReportEntry) -> dict[str, Any]:
    """Return what the page shows for one question."""
    answer, record = entry.answer, entry.record
    pieces = [
        {
            "span": span(piece.interval.start_ns, piece.interval.end_ns, entry.start_ns),
            "source": piece.source,
            "modality": piece.modality,
            "score": piece.score,
            "picture": base64.b64encode(picture_of(piece)).decode(),
        }
        for piece in answer.evidence
    ]
    return {
        "id": record.id,
        "bag": entry.bag,
        "asked": clock(record.ask_ns, entry.start_ns),
        "text": record.text,
        "kind": record.kind,
        "type": record.answer_type,
        "expected": expected_text(record, entry.start_ns),
        "near_miss": record.near_miss,
        "expected_evidence": [span(e.start_ns, e.end_ns, entry.start_ns) for e in record.evidence],
        "answer": answer_text(answer, record, entry.start_ns),
        "said": answer.text,
        "confidence": answer.confidence,
        "correct": entry.judgement.correct,
        "error": entry.judgement.error,
        "evidence": pieces,
        "cause": cause_of(entry),
        "moments": _moments(entry),
        "track": _track(entry) if entry.held is not None else None,
    }


def cause_of(entry: ReportEntry) -> str:
    """Why an answer is wrong, one of CAUSES; empty if it is right."""
    judgement = entry.judgement
    if judgement.correct:
        return ""
    if judgement.error:
        return "error"
    if not entry.record.answerable:
        return "invented"
    kept = entry.held.kept(entry.record) if entry.held is not None else None
    if kept is None:
        return "not measured"
    if not kept:
        return "forgotten"
    return "misread" if judgement.evidence_hit else "not found"


def causes(entries: Iterable[ReportEntry]) -> list[tuple[str, str, int]]:
    """Return name, meaning and number of wrong answers of each cause that occurs."""
    found = Counter(cause_of(entry) for entry in entries)
    return [(name, meaning, found[name]) for name, meaning in CAUSES.items() if found[name]]


def _moments(entry: ReportEntry) -> list[str]:
    """What the memory held of each true moment, a sentence each."""
    held = entry.held
    if held is None:
        return []
    sentences = []
    for piece, count, away_s in zip(entry.record.evidence, held.of_evidence, held.nearest_s, strict=True):
        what = "visual" if piece.modality == "vision" else "audio"
        when = span(piece.start_ns, piece.end_ns, entry.start_ns)
        if count:
            sentences.append(f"{count} {what} token{'' if count == 1 else 's'} of the true moment at {when}.")
        elif away_s is None:
            sentences.append(f"No {what} token at all; the true moment is at {when}.")
        else:
            sentences.append(f"No {what} token of the true moment at {when}; the nearest is {away_s:.0f} s away.")
    return sentences


def _track(entry: ReportEntry) -> dict[str, Any]:
    """Return a drawing of the kept tokens over the stream: one path a modality, boxes for moments, in SVG units."""
    held = entry.held
    assert held is not None
    top = max([1, *held.visual, *held.audio])
    true = [_box(held, piece.interval) for piece in entry.record.evidence]
    used = [_box(held, piece.interval) for piece in entry.answer.evidence]
    return {
        "visual": _path(held.visual, top),
        "audio": _path(held.audio, top),
        "true": true,
        "used": used,
        "tokens": (sum(held.visual), sum(held.audio)),
        "end": clock(held.end_ns, entry.start_ns),
    }


def _path(counts: tuple[int, ...], top: int) -> str:
    """An SVG path along the tops of the bins; the root makes single tokens visible beside a thousand."""
    step = TRACK_WIDTH / len(counts)
    heights = [TRACK_HEIGHT * (1 - (count / top) ** 0.5) for count in counts]
    steps = "".join(f"V{y:.1f}H{(i + 1) * step:.1f}" for i, y in enumerate(heights))
    return f"M0 {TRACK_HEIGHT:.0f}{steps}V{TRACK_HEIGHT:.0f}Z"


def _box(held: HeldTokens, interval: Interval) -> tuple[float, float]:
    """Left edge and width of a moment; at least wide enough to be seen."""
    scale = TRACK_WIDTH / (held.end_ns - held.start_ns)
    left = min(max((interval.start_ns - held.start_ns) * scale, 0.0), TRACK_WIDTH)
    right = min(max((interval.end_ns - held.start_ns) * scale, left), TRACK_WIDTH)
    return round(left, 1), round(max(right - left, 3.0), 1)
