"""Endurance benchmark: the fast weights alone over 100 000 mini-batches. Do they stay finite, and do they still learn?

Each mini-batch has new rows: unit keys, and targets from a slowly changing linear map. So there is always something to
learn. There are no projections and no long-span term. The run records norms and objective.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch.nn import functional as F

from salmonn_node.ttt import inner_model
from salmonn_node.ttt import update as fast_update
from salmonn_node.ttt.config import TTTConfig
from salmonn_node.ttt.inner_model import InnerWeights, Norm
from salmonn_node.ttt.update import Rows

HEADS, D, MINI_BATCH = 4, 32, 64
TINY = TTTConfig(hidden_size=HEADS * D, num_heads=HEADS, mini_batch=MINI_BATCH, lag_distance=0)
# Changes of each arm. base_lr = rate * D * m gives each row a rate of rate / 2.
ARMS = {
    "SGD": {"optimizer": "sgd", "base_lr": 0.01 * D * MINI_BATCH},
    "HF K=2": {"optimizer": "hf", "cg_iterations": 2, "base_lr": 1.0 * D * MINI_BATCH},
}
TURN = 2_000  # mini-batches until the target map has changed into another one


@torch.no_grad()
def endure(config: TTTConfig, updates: int, dtype: torch.dtype, notes: int = 50, seed: int = 0) -> dict[str, Any]:
    """Update the fast weights `updates` times. `dtype` is both the compute dtype and the state dtype.

    Returns:
        `updates`, `norm` (root mean square of W1 and W2), `objective` (before the update, per row), each a list of
        `notes` values; `finite`; `update_us`.
    """
    torch.manual_seed(seed)
    config = replace(config, state_dtype=dtype)
    shapes = ((HEADS, D, D), (HEADS, 1, D), (HEADS, D, D), (HEADS, 1, D))
    initial = InnerWeights(*(0.1 * torch.randn(shape).to(dtype) for shape in shapes))
    unit = Norm(torch.ones(HEADS, 1, D), torch.zeros(HEADS, 1, D))
    norm = Norm(unit.gamma.to(dtype), unit.beta.to(dtype))
    rate = config.base_lr / D / MINI_BATCH * torch.full((HEADS, MINI_BATCH, 1), 0.5, dtype=dtype)
    damping = torch.full((HEADS,), config.damping)
    old, new = torch.randn(2, HEADS, D, D)
    weights = initial
    history: dict[str, list[float]] = {"updates": [], "norm": [], "objective": []}
    began = time.process_time()
    for n in range(updates):
        if n % TURN == 0:
            old, new = new, torch.randn(HEADS, D, D)
        key = F.normalize(torch.randn(HEADS, MINI_BATCH, D), dim=-1)
        target = inner_model.normalise_target(key @ torch.lerp(old, new, n % TURN / TURN), unit)
        rows = Rows(key.to(dtype), key.to(dtype), target.to(dtype), rate)
        if n % max(1, updates // notes) == 0 or n == updates - 1:
            error = inner_model.evaluate(rows.key, weights, norm).float() - target
            history["updates"].append(n)
            history["norm"].append(float(torch.cat([w.float().flatten() for w in weights]).square().mean().sqrt()))
            history["objective"].append(float(0.5 * error.square().sum(-1).mean()))
        step = fast_update.update(rows, weights, initial, damping, norm, config)
        weights, damping = step.weights, step.damping
    spent = time.process_time() - began
    finite = all(bool(w.isfinite().all()) for w in weights)
    return history | {"finite": finite, "update_us": 1e6 * spent / updates}


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run SGD and Hessian-free steps in float32 and bfloat16 without decay, then in float32 with decay."""
    results: dict[str, Any] = {}
    for dtype, decay in ((torch.float32, 0.0), (torch.bfloat16, 0.0), (torch.float32, 0.01)):
        for name, changes in ARMS.items():
            label = f"{name} {str(dtype).removeprefix('torch.')}{f', decay {decay:g}' if decay else ''}"
            results[label] = endure(replace(TINY, **changes, decay=decay), args.updates, dtype)  # type: ignore[arg-type]
            print(
                label, {key: value[-1] for key, value in results[label].items() if isinstance(value, list)}, flush=True
            )
    if args.plot:
        plot(results, args.plot)
    return results


def plot(results: dict[str, Any], path: Path) -> None:
    """Plot norm and objective of every arm against the number of mini-batches."""
    from plotly import graph_objects  # an extra, only needed here
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=1, cols=2, subplot_titles=("rms of the fast weights", "objective per row"))
    for label, result in results.items():
        for column, name in ((1, "norm"), (2, "objective")):
            figure.add_trace(graph_objects.Scatter(x=result["updates"], y=result[name], name=label), row=1, col=column)
    figure.write_html(path, include_plotlyjs="cdn")


def tables(results: dict[str, Any]) -> list[Table]:
    """Make a table of first, middle and last values of each arm."""
    table = Table("arm", "rms first", "middle", "last", "objective first", "middle", "last", "finite", "us/update")
    for label, r in results.items():
        values = [f"{r[name][i]:.3g}" for name in ("norm", "objective") for i in (0, len(r[name]) // 2, -1)]
        table.add_row(label, *values, str(r["finite"]), f"{r['update_us']:.0f}")
    return [table]
