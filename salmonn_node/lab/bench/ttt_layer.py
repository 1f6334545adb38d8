"""TTT-layer benchmark: throughput against a plain matrix product and against the release's operations."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from rich.table import Table

from salmonn_node.lab.bench.ttt_plain import plain_mini_batch
from salmonn_node.ttt.layer import TTTConfig, TTTLayer

FULL = TTTConfig()
TINY = TTTConfig(hidden_size=128, num_heads=4, mini_batch=64, lag_distance=64)
SIZES = {"full": FULL, "tiny": TINY}
STEPS = (("sgd", 1), ("hf", 1), ("hf", 2), ("hf", 4))


@dataclass
class Figure:
    """One row. Times are the best of several rounds, per mini-batch. Shares are relative to a plain product."""

    size: str
    threads: int
    update: str
    layer_ms: float
    tokens_per_s: float
    layer_share: float
    inner_ms: float
    inner_share: float
    plain_ms: float
    speedup: float
    matmul_gflops: float


def flops_per_token(config: TTTConfig) -> tuple[float, float]:
    """Multiplications and additions of matrix products per token: (projections, inner update with read-back)."""
    projections = (4 + 2 * bool(config.lag_distance)) * 2 * config.hidden_size**2
    product = 2 * config.num_heads * config.head_dim * (config.inner_size or config.head_dim)
    iterations = config.cg_iterations if config.optimizer == "hf" else 0
    return projections, product * (7 + 6 * iterations)


def interleaved(calls: list[Callable[[], object]], seconds: float) -> list[float]:
    """Return the best seconds of each call. The calls alternate, so that a busy machine slows all of them alike.

    With one thread, the clock is the processor time of that thread, which excludes other programs.
    """
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while len(times[0]) < 3 or time.perf_counter() < end:
        for call, spent in zip(calls, times, strict=True):
            began = clock()
            call()
            spent.append(clock() - began)
    return [min(spent) for spent in times]


@torch.no_grad()
def measure(size: str, optimizer: str, iterations: int, seconds: float) -> Figure:
    """Measure one size and update rule: whole layer, inner update, the release's operations, a plain product."""
    torch.manual_seed(0)
    config = replace(SIZES[size], optimizer=optimizer, cg_iterations=iterations)  # type: ignore[arg-type]
    m, hidden = config.mini_batch, config.hidden_size
    layer = TTTLayer(config)
    x, source = torch.randn(1, m, hidden), torch.randn(1, m, hidden)
    n = torch.arange(m)
    places = torch.stack([n // 153, n % 153 // 17, n % 17], dim=-1)
    state = layer.init_state()
    rows = layer.project(x, places[None], source, torch.ones(m, dtype=torch.bool))
    fast = state.weights.merged()
    weights = [w.clone() for w in state.weights]

    def inner() -> None:
        layer.read_heads(rows.query, layer.update(rows, fast, state.damping.flatten()).weights)

    layer_s, inner_s, plain_s, product_s = interleaved(
        [
            lambda: layer.observe(x[0], places, state),
            inner,
            lambda: plain_mini_batch(layer, x, source, places, weights),
            lambda: torch.mm(x[0], layer.wq.weight.mT),
        ],
        seconds,
    )
    rate = 2 * m * hidden**2 / product_s
    projections, inner_flops = (f * m for f in flops_per_token(config))
    return Figure(
        size=size,
        threads=torch.get_num_threads(),
        update="SGD" if optimizer == "sgd" else f"HF K={iterations}",
        layer_ms=1e3 * layer_s,
        tokens_per_s=m / layer_s,
        layer_share=(projections + inner_flops) / layer_s / rate,
        inner_ms=1e3 * inner_s,
        inner_share=inner_flops / inner_s / rate,
        plain_ms=1e3 * plain_s,
        speedup=plain_s / layer_s,
        matmul_gflops=rate / 1e9,
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """All rows."""
    before = torch.get_num_threads()
    rows = []
    try:
        for threads in args.layer_threads:
            torch.set_num_threads(threads)
            for size in args.sizes:
                for optimizer, iterations in STEPS:
                    rows.append(
                        asdict(measure(size, optimizer, iterations, args.seconds / (1 if size == "full" else 5)))
                    )
    finally:
        torch.set_num_threads(before)
    return {"rows": rows}


def tables(results: dict[str, Any]) -> list[Table]:
    """Make a table. Shares are relative to the plain product; `beside release` is the ratio of tokens/s."""
    names = ("size", "threads", "update", "tokens/s", "layer share", "inner share", "beside release", "product GFLOP/s")
    table = Table(*names, title="TTT layer")
    for row in results["rows"]:
        table.add_row(
            row["size"], str(row["threads"]), row["update"], f"{row['tokens_per_s']:,.0f}", f"{row['layer_share']:.0%}",
            f"{row['inner_share']:.0%}", f"{row['speedup']:.2f}x", f"{row['matmul_gflops']:.0f}",
        )  # fmt: skip
    return [table]
