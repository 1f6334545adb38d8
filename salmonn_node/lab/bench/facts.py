"""Facts benchmark: what do fast weights alone remember of the synthetic world? Compares update rules over seeds.

The layer observes streams of held-out worlds, eight mini-batches of 64 tokens (two minutes of camera). Then learned
queries go to `TTTLayer.recall`: what colour was the SHAPE in the ROOM, which room was the THING in, was there a THING.
There is no token memory and no language model. `static` has the same parameters but no updates; it shows what can be
guessed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import nn

from salmonn_node.lab.training import bank, fact_reader, facts, loop
from salmonn_node.lab.training.result_rows import add_row, read_rows
from salmonn_node.lab.training.sizes import MINI_BATCH, network_config
from salmonn_node.lab.training.stages import Work
from salmonn_node.ttt.layer import TTTConfig

# name -> (update rule, K, maximum rate of a token as a share of its step)
ARMS = {
    "static": ("static", 1, 1.0),
    "SGD .003": ("sgd", 1, 0.003),
    "SGD .01": ("sgd", 1, 0.01),
    "SGD .03": ("sgd", 1, 0.03),
    "HF K=1": ("hf", 1, 1.0),
    "HF K=2": ("hf", 2, 1.0),
}
DAYS = (100, 1_000, 10_000)
SEGMENTS, UNSEEN = 1_500, 96


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run every arm with every seed."""
    rows = read_rows(args.results)
    for seed in range(args.seeds):
        for arm in args.arms.split(","):
            wanted = {"arm": arm, "seed": seed, "steps": args.steps, "inner": args.inner}
            if any(wanted.items() <= row.items() for row in rows):
                continue
            rows.append(wanted | _one(args.work, arm, seed, args.steps, args.inner))
            print(json.dumps(rows[-1]), flush=True)
            add_row(args.results, rows[-1])
    return {"rows": rows}


def _one(folder: Path, arm: str, seed: int, steps: int, inner: int) -> dict[str, Any]:
    work = Work(folder)
    trained, held = work.bank(bank.TRAIN, twice=True), work.bank(bank.HELD_OUT)
    rule, iterations, rate = ARMS[arm]
    ttt = network_config().ttt
    assert ttt is not None
    width = network_config().hidden_size
    changes = {
        "optimizer": rule, "cg_iterations": iterations, "base_lr": rate * ttt["base_lr"], "inner_size": inner,
    }  # fmt: skip
    torch.manual_seed(seed)
    reader = fact_reader.FactReader(TTTConfig(hidden_size=width, **{**ttt, **changes}))
    with torch.no_grad():
        for weights in (reader.ttt.W1, reader.ttt.W2):
            weights.normal_(std=weights.shape[1] ** -0.5)
    known = facts.segments(SEGMENTS, trained, MINI_BATCH, 1)
    unseen = facts.segments(UNSEEN, held, MINI_BATCH, 2)
    trainer = fact_reader.FactTrainer(reader, known, trained, unseen, held, seed)
    name = f"facts_{arm}_{inner}_{seed}".replace(" ", "_").replace(".", "").replace("=", "")
    plan = loop.Plan(name, steps, fact_reader.PLAN.rate, fact_reader.PLAN.warmup)
    lines = list(loop.run(plan, nn.ModuleDict({"reader": reader}), trainer.batch, trainer.loss, work.states))
    reader.eval()
    with torch.no_grad():
        figures = {key: round(value, 4) for key, value in trainer.held_out().items()}
        days = {f"after_{key}": round(value, 4) for key, value in trainer.after_days(DAYS).items()}
    return figures | days | {"train_s": lines[-1]["s"] if lines else None}


def tables(results: dict[str, Any]) -> list[Table]:
    """Make a table of the mean over seeds and of the range."""
    rows = results["rows"]
    shown = ["all", *facts.KINDS, *(f"age_{age}" for age in range(0, facts.UPDATES, 2)), *(f"after_{n}" for n in DAYS)]
    table = Table(title="share of facts recalled from the fast weights alone: mean (lowest to highest seed)")
    for name in ("arm", "seeds", *shown):
        table.add_column(name)
    for arm in dict.fromkeys(row["arm"] for row in rows):
        mine = [row for row in rows if row["arm"] == arm]
        cells = []
        for name in shown:
            values = [row[name] for row in mine if name in row]
            cells.append(f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})" if values else "")
        table.add_row(arm, str(len(mine)), *cells)
    return [table]
