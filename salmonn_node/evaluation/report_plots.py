"""Plots of the report, as plain values that plotly draws: title, traces, layout."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from salmonn_node.stream.observations import SECOND_NS

if TYPE_CHECKING:
    from salmonn_node.evaluation.report import ReportData


def plots(data: ReportData) -> list[dict[str, Any]]:
    """Return the figures of a report, in the order shown."""
    figures = []
    for table, title in (("by_age", "Accuracy by age of the evidence"), ("by_length", "Accuracy by stream length")):
        figures.append(_binned(data, table, title))
    curve = data.scores["calibration"]["curve"]
    if curve:
        traces: list[dict[str, Any]] = [
            {"type": "scatter", "mode": "lines", "name": "perfect", "x": [0, 1], "y": [0, 1], "line": {"dash": "dot"}},
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": "this run",
                "x": [point["confidence"] for point in curve],
                "y": [point["accuracy"] for point in curve],
                "text": [f"{point['n']} questions" for point in curve],
            },
        ]
        figures.append(_figure("Reliability", traces, "stated confidence", "accuracy", [0, 1.02]))
    for bag, (seconds, tokens) in data.timelines.items():
        traces = [{"type": "bar", "name": "kept tokens", "x": list(seconds), "y": list(tokens)}]
        traces += _marks(data, bag, max(tokens, default=1.0))
        figures.append(_figure(f"What is remembered of {bag}", traces, "stream time, s", "kept tokens", None))
    return figures


def _binned(data: ReportData, table: str, title: str) -> dict[str, Any]:
    """Accuracy by bin and arm; the axis says how many questions are in a bin."""
    # Arms may lack a bin, and plotly orders categories by first appearance.
    counts: dict[str, int] = {}
    for scores in data.arms.values():
        for name, row in scores[table].items():
            counts[name] = max(counts.get(name, 0), row["n"])
    labels = {name: f"{name}<br>{counts[name]} question{'' if counts[name] == 1 else 's'}" for name in counts}
    traces = []
    for arm, scores in data.arms.items():
        rows = scores[table]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": arm,
                "x": [labels[name] for name in rows],
                "y": [row["accuracy"] for row in rows.values()],
                "text": [f"{row['n']} questions" for row in rows.values()],
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [max(0.0, row["high"] - row["accuracy"]) for row in rows.values()],
                    "arrayminus": [max(0.0, row["accuracy"] - row["low"]) for row in rows.values()],
                },
            }
        )
    figure = _figure(title, traces, "", "accuracy", [0, 1.02])
    order = sorted(labels, key=lambda name: float(name.split("-")[0]))
    figure["layout"]["xaxis"] |= {"categoryorder": "array", "categoryarray": [labels[name] for name in order]}
    figure["layout"]["showlegend"] = True
    return figure


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
        "margin": {"l": 50, "r": 20, "t": 10, "b": 55},
        "height": 320,
        "xaxis": {"title": {"text": x}},
        "yaxis": {"title": {"text": y}},
        "legend": {"orientation": "h", "y": -0.25},
        "template": "none",
        "font": {"family": "system-ui, sans-serif", "size": 13},
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
