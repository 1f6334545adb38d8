"""Tables of the evidence benchmark: evidence hits and abstention, with intervals from resampled streams."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from salmonn_node.answering.abstention import SIGNS, Observed, f1, fit, held_back
from salmonn_node.evaluation.head_choice import Located, chosen_heads, tried

Row = dict[str, Any]
Value = Callable[[Sequence[Row]], float]
# How the heaviest window is found -> column of a row.
WAYS = {
    "by chance": "chance",
    "attention of the answer position": "attention",
    "it is among the 8 candidates": "candidates",
    "sufficiency of 8, over the cached memory": "masked",
    "sufficiency of 8, each read alone": "alone_candidates",
    "sufficiency of all, each read alone": "alone",
    "attention and sufficiency of 8 (step 2 of the node)": "weighed",
    "attention and sufficiency of all, read alone (step 3)": "alone_weighed",
    "step 2 with heads chosen on other worlds": "chosen",
}
# Of a time, the stand-in writes only "seen" or "heard", which the question gives away.
WORDLESS = ("when_first", "when_last")
SAMPLES, LEVEL = 1000, 0.95


def interval(rows: Sequence[Row], value: Value, seed: int = 0) -> tuple[float, float, float]:
    """Value of some rows, and its 95 % interval. Streams are resampled, because the questions of one are alike."""
    streams: dict[str, list[Row]] = {}
    for row in rows:
        streams.setdefault(row["stream"], []).append(row)
    units, rng = list(streams.values()), np.random.default_rng(seed)
    if not units:
        return math.nan, math.nan, math.nan
    picks = rng.integers(0, len(units), (SAMPLES, len(units)))
    values = [value([row for i in pick for row in units[i]]) for pick in picks]
    low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return value(rows), float(low), float(high)


def share(column: str) -> Value:
    """Mean of a column."""
    return lambda rows: float(np.mean([row[column] for row in rows])) if rows else math.nan


def hits(rows: Sequence[Row]) -> Table:
    """Share of answerable questions whose heaviest window meets the evidence."""
    answerable = [row for row in rows if row["answerable"]]
    right = [row for row in answerable if row["words_right"]]
    telling = [row for row in right if row["kind"] not in WORDLESS]
    wrong = [row for row in answerable if not row["words_right"]]
    lengths = sorted({row["seconds"] for row in answerable})
    table = Table(title=f"evidence hit, {len(answerable)} answerable questions, {len(right)} with the right words")
    timeless = f"of them {len(telling)} not about a time"
    for name in ("how", "all", "words right", timeless, "words wrong", *(f"{seconds} s" for seconds in lengths)):
        table.add_column(name)
    for way, column in WAYS.items():
        if not all(column in row for row in answerable):
            continue
        parts = [answerable, right, telling, wrong, *([r for r in answerable if r["seconds"] == s] for s in lengths)]
        table.add_row(way, *(_cell(*interval(part, share(column))) for part in parts))
    return table


def with_chosen_heads(rows: Sequence[Row], fitted_on: Sequence[Row]) -> list[Row]:
    """Return the rows with the column `chosen`: evidence found with heads that were chosen on other worlds."""
    heads = chosen_heads([_located(row) for row in fitted_on if "scored" in row])
    return [row | {"chosen": _located(row).found(heads)} if "scored" in row else row for row in rows]


def head_sizes(fitted_on: Sequence[Row]) -> Table:
    """Evidence found with the best heads, cross-validated on the worlds that heads are chosen on."""
    found = tried([_located(row) for row in fitted_on if "scored" in row])
    stay = f"the best {found.best} are taken" if found.best else "all stay"
    table = Table("heads", "evidence hit", title=f"heads, cross-validated on {len(found.plain)} questions: {stay}")
    table.add_row("all", f"{found.plain.mean():.2f}")
    for size, hits_of_size in zip(found.sizes, found.found, strict=True):
        table.add_row(f"best {size}", f"{hits_of_size.mean():.2f}")
    return table


def _located(row: Row) -> Located:
    scored = row["scored"]
    attention, sufficiency = (np.array(scored[name], np.float32) for name in ("attention", "sufficiency"))
    return Located(row["stream"], attention, sufficiency, np.array(scored["hits"], bool))


def abstention(rows: Sequence[Row], fitted_on: Sequence[Row]) -> Table:
    """F1 of abstaining: by the outcome that a planner gets, and with a rule fitted on other worlds."""
    table = Table(title=f"abstention, {sum(not r['answerable'] for r in rows)} of {len(rows)} questions unanswerable")
    for name in ("how", "F1", "precision", "recall", "right of the answerable, by the scorer"):
        table.add_column(name)
    ways: dict[str, Observed | None] = {"without a calibration": None}
    known = [row for row in fitted_on if row["signs"] is not None]
    if known:
        ways["with a rule fitted on other worlds"] = fit([r["signs"] for r in known], [r["answerable"] for r in known])
    for way, rule in ways.items():
        told = [row | {"abstained": abstains(row, rule)} for row in rows]
        given = [row | {"right": row["correct"] and not row["abstained"]} for row in told if row["answerable"]]
        table.add_row(
            way,
            *(_cell(*interval(told, v)) for v in (_f1, _precision, _recall)),
            _cell(*interval(given, share("right"))),
        )
    return table


def abstains(row: Row, rule: Observed | None) -> bool:
    """Whether an answer abstains: by its own words, or by a rule where a question has signs. None: the default rule."""
    if row["abstained"] or row["signs"] is None:
        return bool(row["abstained"])
    if rule is None:
        return held_back(row["signs"])
    return rule.probability(row["signs"]) < rule.least


def separation(rows: Sequence[Row]) -> Table:
    """How well each sign alone tells what the memory shows from what it does not: area under the ROC curve."""
    known = [row for row in rows if row["signs"] is not None]
    table = Table(title=f"area under the ROC curve, {len(known)} questions with signs")
    for name in ("sign", "area"):
        table.add_column(name)
    for sign in SIGNS:
        table.add_row(sign, _cell(*interval(known, lambda part, sign=sign: _area(part, sign))))  # type: ignore[misc]
    return table


def _area(rows: Sequence[Row], sign: str) -> float:
    shown = np.array([row["signs"][sign] for row in rows if row["answerable"]])
    others = np.array([row["signs"][sign] for row in rows if not row["answerable"]])
    if not len(shown) or not len(others):
        return math.nan
    above = (shown[:, None] > others).mean() + 0.5 * (shown[:, None] == others).mean()
    return float(above)


def _f1(rows: Sequence[Row]) -> float:
    return f1(*_columns(rows))


def _precision(rows: Sequence[Row]) -> float:
    said, unshown = _columns(rows)
    return float(unshown[said].mean()) if said.any() else math.nan


def _recall(rows: Sequence[Row]) -> float:
    said, unshown = _columns(rows)
    return float(said[unshown].mean()) if unshown.any() else math.nan


def _columns(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([row["abstained"] for row in rows], bool), np.array([not row["answerable"] for row in rows], bool)


def _cell(value: float, low: float, high: float) -> str:
    return f"{value:.2f} ({low:.2f} to {high:.2f})"
