"""Evidence benchmark: cost of evidence without an evidence head (sufficiency and yes-or-no pass), in plain answers.

A plain answer reads the whole prompt and writes a few tokens. Times are process times of one run, so only ratios are
meaningful. The benchmark does not measure how often such evidence is right.
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

from salmonn_node.model.checkpoint import load
from salmonn_node.model.evidence_windows import Rereading, grounded, log_likelihoods, question_row
from salmonn_node.stream.observations import SECOND_NS, AudioSpan, Frame

QUESTION = "where did you last see the red box?"
STREAMS_S = (60, 120)
REPEATS = 7
# Ids of an answer and of "yes" or "no". The choice of tokens does not affect the time.
ANSWER, YES_OR_NO = (65, 66, 67, 68), (65, 66)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Return one row per prefill mode and stream length."""
    return {"evidence": [_cost(prefill, seconds) for prefill in ("exact", "cached") for seconds in STREAMS_S]}


def tables(results: dict[str, Any]) -> list[Table]:
    """Make a table with one row per prefill mode and stream length."""
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
    windows = _seconds(lambda: grounded(decoder, generation.attention, ANSWER))
    asked = _seconds(lambda: log_likelihoods(decoder, [whole, whole]))
    return {
        "prefill": prefill,
        "stream s": seconds,
        "prompt rows": len(decoder.prompt),
        "plain answer s": plain,
        "sufficiency of 8 windows, plain answers": windows / plain,
        "yes-or-no pass, plain answers": asked / plain,
    }


def _seconds(call: Callable[[], object]) -> float:
    """Median process seconds."""
    found = []
    for _ in range(REPEATS):
        started = time.process_time()
        call()
        found.append(time.process_time() - started)
    return statistics.median(found)
