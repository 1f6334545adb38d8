"""Report: a self-contained HTML page of a replay, with scores, arms, plots, memory timeline, questions and evidence.

The page needs no network, because it contains plotly's script. Jinja2 escapes all text.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from salmonn_node.evaluation.evidence_picture import picture_of
from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.evaluation.scores import Judgement
from salmonn_node.stream.answers import Answer, AnswerType, Outcome
from salmonn_node.stream.observations import SECOND_NS


@dataclass(frozen=True)
class ReportEntry:
    """One question of the report.

    Attributes:
        record, answer, judgement: the question, its answer, and the judgement.
        bag: name of the bag.
        start_ns: stamp at which the page's stream time starts.
    """

    record: QuestionRecord
    answer: Answer
    judgement: Judgement
    bag: str
    start_ns: int


@dataclass(frozen=True)
class ReportData:
    """Everything the page shows.

    Attributes:
        title: heading.
        warning: text of a banner, for example that the weights are untrained. Empty for no banner.
        facts: name -> value, in the order shown (checkpoint, bags, speed, memory...).
        scores: result of `scores.score` for this run.
        arms: scores by arm, for the table and the plots. May hold only this run.
        entries: every question.
        timelines: by bag, (seconds since its start, kept tokens) of the memory at the end.
        notes: sentences about what was dropped, skipped or cut.
    """

    title: str
    warning: str
    facts: Mapping[str, str]
    scores: Mapping[str, Any]
    arms: Mapping[str, Mapping[str, Any]]
    entries: Sequence[ReportEntry]
    timelines: Mapping[str, tuple[Sequence[float], Sequence[float]]] = field(default_factory=dict)
    notes: Sequence[str] = ()


def render(data: ReportData) -> str:
    """Render the page as one string of HTML.

    Raises:
        RuntimeError: Jinja2 or plotly is not installed (extra `report`).
    """
    try:
        from jinja2 import Environment
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise RuntimeError(f"the report needs {error.name}: pip install 'salmonn_node[report]'") from None
    source = resources.files("salmonn_node.evaluation").joinpath("templates/report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = lambda v: "–" if v is None or math.isnan(v) else f"{100 * v:.1f} %"
    environment.filters["number"] = lambda v: "–" if v is None or math.isnan(v) else f"{v:.2f}"
    return environment.from_string(source).render(
        data=data,
        plotly=get_plotlyjs(),
        plots=_plots(data),
        rows=[_row(entry) for entry in data.entries],
    )


def _row(entry: ReportEntry) -> dict[str, Any]:
    """Return what the page shows for one question."""
    answer, record = entry.answer, entry.record
    pieces = [
        {
            "span": _span(piece.interval.start_ns, piece.interval.end_ns, entry.start_ns),
            "source": piece.source,
            "score": piece.score,
            "picture": base64.b64encode(picture_of(piece)).decode(),
        }
        for piece in answer.evidence
    ]
    return {
        "id": record.id,
        "bag": entry.bag,
        "asked": _clock(record.ask_ns, entry.start_ns),
        "text": record.text,
        "kind": record.kind,
        "type": record.answer_type,
        "expected": expected_text(record, entry.start_ns),
        "expected_evidence": [_span(e.start_ns, e.end_ns, entry.start_ns) for e in record.evidence],
        "answer": answer_text(answer, record, entry.start_ns),
        "said": answer.text,
        "confidence": answer.confidence,
        "correct": entry.judgement.correct,
        "error": entry.judgement.error,
        "evidence": pieces,
    }


def answer_text(answer: Answer, record: QuestionRecord, start_ns: int) -> str:
    """Describe the typed answer in a few words. Times count from the start of the stream."""
    if answer.error_code:
        return f"{answer.error_code.name}: {answer.error_msg}"
    if answer.outcome != Outcome.ANSWERED:
        return answer.outcome.name
    kind = answer.answer_type
    if kind == AnswerType.BINARY:
        return "yes" if answer.binary else "no"
    if kind == AnswerType.COUNT:
        return str(answer.count)
    if kind == AnswerType.CHOICE:
        return record.choices[answer.choice_index] if 0 <= answer.choice_index < len(record.choices) else "no choice"
    if kind == AnswerType.DURATION:
        return f"{answer.duration_s:.1f} s"
    if kind == AnswerType.TIME:
        return _span(answer.event.start_ns, answer.event.end_ns, start_ns) if answer.event else "no time"
    if kind == AnswerType.POSITION:
        if answer.pose is None:
            return "no position"
        x, y = answer.pose.position[:2]
        return f"({x:.2f}, {y:.2f}) m in {answer.pose.frame_id}, {answer.pose_kind.name.lower()}"
    return answer.text


def expected_text(record: QuestionRecord, start_ns: int) -> str:
    """Describe the right answer in a few words."""
    expected = record.expected
    if not record.answerable:
        return "not observed"
    if expected.position_m is not None:
        x, y = expected.position_m[:2]
        return f"({x:.2f}, {y:.2f}) m in {expected.frame_id}, {expected.pose_kind.lower()}"
    if record.answer_type == "TIME" and expected.event_start_ns is not None:
        return _span(expected.event_start_ns, expected.event_end_ns or expected.event_start_ns, start_ns)
    if record.answer_type == "DURATION":
        return f"{expected.duration_s:.1f} s"
    if record.answer_type == "COUNT":
        return str(expected.count)
    if record.answer_type == "BINARY":
        return "yes" if expected.binary else "no"
    if record.answer_type == "CHOICE" and expected.choice_index is not None:
        return record.choices[expected.choice_index]
    return expected.text


def _clock(stamp_ns: int, start_ns: int) -> str:
    """Format a stamp as h:mm:ss since the start of the stream."""
    seconds = round((stamp_ns - start_ns) / SECOND_NS)
    sign = "-" if seconds < 0 else ""
    seconds = abs(seconds)
    return f"{sign}{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _span(first_ns: int, last_ns: int, start_ns: int) -> str:
    first, last = _clock(first_ns, start_ns), _clock(last_ns, start_ns)
    return first if first == last else f"{first} to {last}"


def _plots(data: ReportData) -> list[dict[str, Any]]:
    """Return plotly figures as plain values: title, traces, layout."""
    plots = []
    for table, title in (("by_age", "Accuracy by age of the evidence"), ("by_length", "Accuracy by stream length")):
        traces = []
        for arm, scores in data.arms.items():
            rows = scores[table]
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": arm,
                    "x": list(rows),
                    "y": [row["accuracy"] for row in rows.values()],
                    "error_y": {
                        "type": "data",
                        "symmetric": False,
                        "array": [_gap(row["high"], row["accuracy"]) for row in rows.values()],
                        "arrayminus": [_gap(row["accuracy"], row["low"]) for row in rows.values()],
                    },
                }
            )
        figure = _figure(title, traces, "", "accuracy", [0, 1.02])
        # Arms may lack a bin, and plotly orders categories by first appearance.
        bins = {name: float(name.split("-")[0]) for scores in data.arms.values() for name in scores[table]}
        figure["layout"]["xaxis"] |= {"categoryorder": "array", "categoryarray": sorted(bins, key=bins.__getitem__)}
        plots.append(figure)
    curve = data.scores["calibration"]["curve"]
    if curve:
        traces = [
            {"type": "scatter", "mode": "lines", "name": "perfect", "x": [0, 1], "y": [0, 1], "line": {"dash": "dot"}},
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": "this run",
                "x": [point["confidence"] for point in curve],
                "y": [point["accuracy"] for point in curve],
            },
        ]
        plots.append(_figure("Reliability", traces, "stated confidence", "accuracy", [0, 1.02]))
    for bag, (seconds, tokens) in data.timelines.items():
        traces = [{"type": "bar", "name": "kept tokens", "x": list(seconds), "y": list(tokens)}]
        traces += _marks(data, bag, max(tokens, default=1.0))
        plots.append(_figure(f"What is remembered of {bag}", traces, "stream time, s", "kept tokens", None))
    return plots


def _marks(data: ReportData, bag: str, top: float) -> list[dict[str, Any]]:
    """Return the questions and the evidence of their answers on the timeline of a bag."""
    marks = []
    for right, colour in ((True, "#2a7f3f"), (False, "#b3362b")):
        entries = [e for e in data.entries if e.bag == bag and e.judgement.correct is right]
        word = "right" if right else "wrong"
        marks.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"asked, {word}",
                "x": [(e.record.ask_ns - e.start_ns) / SECOND_NS for e in entries],
                "y": [1.08 * top] * len(entries),
                "text": [e.record.text for e in entries],
                "marker": {"symbol": "triangle-down", "size": 10, "color": colour},
            }
        )
        spots = [(p.interval, e.record.text) for e in entries for p in e.answer.evidence]
        marks.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"evidence, {word}",
                "x": [((i.start_ns + i.end_ns) / 2 - entries[0].start_ns) / SECOND_NS for i, _ in spots],
                "y": [1.02 * top] * len(spots),
                "text": [text for _, text in spots],
                "marker": {"symbol": "diamond-open", "size": 8, "color": colour},
            }
        )
    return marks


def _figure(title: str, traces: list[dict[str, Any]], x: str, y: str, limits: list[float] | None) -> dict[str, Any]:
    layout: dict[str, Any] = {
        "margin": {"l": 50, "r": 20, "t": 10, "b": 45},
        "height": 320,
        "xaxis": {"title": {"text": x}},
        "yaxis": {"title": {"text": y}},
        "legend": {"orientation": "h", "y": -0.25},
        "template": "none",
    }
    if limits:
        layout["yaxis"]["range"] = limits
    return {"title": title, "traces": _finite(traces), "layout": layout}


def _finite(value: Any) -> Any:
    """Replace NaN and infinity by null, because JSON has neither."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _gap(high: float, low: float) -> float:
    return max(0.0, high - low)
