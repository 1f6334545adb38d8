"""Plot of `salmonn eval`: accuracy against stream length, one line per arm, sparse and dense side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

COLOURS = {
    "default": "#0b6e4f", "network": "#335c9e", "recent": "#888888", "fifo": "#c1121f", "uniform": "#e09f3e",
    "merge": "#8a5a2b", "paper": "#7b2d8b", "place": "#3a9ea5", "told": "#0b6e4f", "blind": "#888888",
}  # fmt: skip
# Bounds, drawn thin and dashed: what is asked is told; the most common answer.
BOUNDS = ("told", "blind")
NAMES = {
    "default": "the default, with events", "network": "the network alone", "told": "the question told",
    "blind": "most common answer",
}  # fmt: skip
PANEL, HEIGHT, MARGIN = 300, 230, 46
BUDGET_S = 128.0  # camera seconds that fit the visual budget without discarding
WHOLE_S = 12_800.0
LONGEST_S = 3 * WHOLE_S


def write_plot(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the plot as SVG, from the rows of `salmonn eval --results`. Arms without a colour are left out."""
    rows = [row for row in rows if row["arm"] in COLOURS]
    parts: list[str] = []
    for number, kind in enumerate(("sparse", "dense")):
        mine = [r for r in rows if str(r["set"]).startswith(kind)]
        parts += _panel(kind, mine, MARGIN + number * (PANEL + MARGIN))
    x = float(MARGIN)
    for arm in dict.fromkeys(str(r["arm"]) for r in rows):
        name = NAMES.get(arm, arm)
        y = HEIGHT + 78
        parts.append(f'<line x1="{x}" y1="{y}" x2="{x + 18}" y2="{y}" {_stroke(arm)}/>')
        parts.append(f'<text x="{x + 23}" y="{y + 4}">{name}</text>')
        x += 42 + 6 * len(name)
    width, height = 2 * (PANEL + MARGIN) + 20, HEIGHT + 96
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
    ground = f'<rect width="{width}" height="{height}" fill="white"/>'
    path.write_text("\n".join([f'{head} font-size="11">', ground, *parts, "</svg>", ""]))


def _panel(kind: str, rows: Sequence[Mapping[str, Any]], left: float) -> list[str]:
    top = 30

    def x_of(seconds: float) -> float:
        return left + PANEL * math.log(seconds / BUDGET_S) / math.log(LONGEST_S / BUDGET_S)

    def y_of(share: float) -> float:
        return top + HEIGHT * (1 - share)

    out = [f'<text x="{left}" y="{top - 12}" font-size="13">{kind} streams: answerable questions right</text>']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = y_of(share)
        out.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + PANEL}" y2="{y:.1f}" stroke="#dddddd"/>')
        out.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{share:g}</text>')
    for times in (1, 4, 16, 100, 300):
        x = x_of(times * BUDGET_S)
        out.append(f'<text x="{x:.1f}" y="{top + HEIGHT + 18}" text-anchor="middle">{times}x</text>')
    out.append(f'<text x="{left + PANEL / 2}" y="{top + HEIGHT + 34}" text-anchor="middle">visual budget</text>')
    for arm in dict.fromkeys(str(r["arm"]) for r in rows):
        mine = sorted((_seconds(r), r) for r in rows if r["arm"] == arm)
        points = " ".join(f"{x_of(s):.1f},{y_of(float(r['answerable'])):.1f}" for s, r in mine)
        colour = COLOURS[arm]
        out.append(f'<polyline points="{points}" fill="none" {_stroke(arm)}/>')
        if arm in BOUNDS:
            continue
        for seconds, row in mine:
            x = x_of(seconds)
            low, high = y_of(float(row["low"])), y_of(float(row["high"]))
            out.append(f'<line x1="{x:.1f}" y1="{low:.1f}" x2="{x:.1f}" y2="{high:.1f}" stroke="{colour}"/>')
            out.append(f'<circle cx="{x:.1f}" cy="{y_of(float(row["answerable"])):.1f}" r="3" fill="{colour}"/>')
    return out


def _stroke(arm: str) -> str:
    style = 'stroke-width="1" stroke-dasharray="4 3"' if arm in BOUNDS else 'stroke-width="2"'
    return f'stroke="{COLOURS[arm]}" {style}'


def _seconds(row: Mapping[str, Any]) -> float:
    settings = row["settings"]
    return float(settings["seconds"] or WHOLE_S * settings.get("joined", 1))
