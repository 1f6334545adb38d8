"""Evidence benchmark: evidence without an evidence head. What it costs, and with `--work` how often it is right.

Costs are in plain answers: reading the whole prompt and writing a few tokens. Times are process times of one run, so
only ratios are meaningful.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rich.table import Table

from salmonn_node.lab.bench.evidence_hits import FIT, TEST, rows_of
from salmonn_node.lab.bench.evidence_tables import abstention, head_sizes, hits, separation, with_chosen_heads
from salmonn_node.model.checkpoint import load
from salmonn_node.model.evidence_windows import (
    CANDIDATES,
    Rereading,
    Windows,
    log_likelihoods,
    question_row,
    sufficiencies,
)
from salmonn_node.model.windows_alone import affordable, sufficiencies_alone
from salmonn_node.stream.observations import SECOND_NS, AudioSpan, Frame

QUESTION = "where did you last see the red box?"
STREAMS_S = (60, 120)
REPEATS = 7
# Ids of an answer and of "yes" or "no". The choice of tokens does not affect the time.
ANSWER, YES_OR_NO = (65, 66, 67, 68), (65, 66)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Return one row of costs per prefill mode and stream length, or with `--work` one row per question."""
    if args.work is not None:
        model = load(args.checkpoint, read_events=False)  # the network itself is asked
        rows = {split.name: rows_of(model, args.work, split, args.results) for split in (FIT, TEST)}
        return {"questions": rows}
    return {"evidence": [_cost(prefill, seconds) for prefill in ("exact", "cached") for seconds in STREAMS_S]}


def tables(results: dict[str, Any]) -> list[Table]:
    """Make the tables."""
    if "questions" in results:
        fitted_on, tested = results["questions"]["fit"], results["questions"]["test"]
        tested = with_chosen_heads(tested, fitted_on)
        made = [hits(tested), abstention(tested, fitted_on), separation(tested)]
        return made + [head_sizes(fitted_on)] if any("scored" in row for row in fitted_on) else made
    rows = results["evidence"]
    table = Table(*rows[0], title="evidence without an evidence head")
    for row in rows:
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()))
    return [table]


@torch.no_grad()
def _cost(prefill: str, seconds: int) -> dict[str, Any]:
    model = load("tiny", evidence_head=False, recall=False, prefill=prefill)
    memory, rng = model.new_memory(), np.random.default_rng(0)
    for t in range(1, seconds + 1):
        model.observe_frame(memory, Frame(t * SECOND_NS, "camera", rng.integers(0, 255, (96, 160, 3), dtype=np.uint8)))
        samples = rng.normal(0, 0.1, 16_000).astype(np.float32)
        model.observe_audio(memory, AudioSpan(t * SECOND_NS, "microphone", samples))
    view = model.view(memory)
    decoder = model.answers.read(QUESTION, view)
    generation = decoder.decode(len(ANSWER), lambda: False, None)
    question = decoder.prompt.ids[question_row(decoder) :].tolist()
    whole = Rereading(question, YES_OR_NO, torch.ones(len(view), dtype=torch.bool))
    plain = _seconds(lambda: model.answers.read(QUESTION, view).decode(len(ANSWER), lambda: False, None))
    made = Windows.of(view, generation.attention)
    compared = made.heaviest(CANDIDATES)
    windows = _seconds(lambda: sufficiencies(decoder, made, compared, ANSWER))
    asked = _seconds(lambda: log_likelihoods(decoder, [whole, whole]))
    order = affordable(decoder, made, ANSWER)
    alone = _seconds(
        lambda: sufficiencies_alone(decoder, lambda part: model.prompt(QUESTION, part), made, order, ANSWER)
    )
    return {
        "prefill": prefill,
        "stream s": seconds,
        "prompt rows": len(decoder.prompt),
        "plain answer s": plain,
        "sufficiency of 8 windows, plain answers": windows / plain,
        "yes-or-no pass, plain answers": asked / plain,
        "windows read alone": len(order),
        "all of them read alone, plain answers": alone / plain,
    }


def _seconds(call: Callable[[], object]) -> float:
    """Median process seconds."""
    found = []
    for _ in range(REPEATS):
        started = time.process_time()
        call()
        found.append(time.process_time() - started)
    return statistics.median(found)
