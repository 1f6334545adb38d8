"""Token-memory benchmark: one step at full size against a full recompute and against the release's way."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from salmonn_node.memory import discard_rules as rules
from salmonn_node.memory.token_memory import TokenBatch, TokenMemory, TokenMemoryConfig

PLACES = 153  # merged tokens of a 288 x 544 frame


def chunk(first: int, count: int, width: int, deepstack: int, generator: torch.Generator) -> TokenBatch:
    """Make `count` tokens of a camera. Each more or less resembles the one before it."""
    z = torch.randn(count, width * (1 + deepstack), generator=generator)
    mix = torch.rand(count, 1, generator=generator)
    z[1:] += 2 * mix[1:] * z[:-1]
    index = first + torch.arange(count)
    patch = index // PLACES
    features = z.unflatten(1, (1 + deepstack, width)).movedim(1, 0)
    zeros = torch.zeros(count, dtype=torch.int64)
    return TokenBatch(
        z=features[0].contiguous(),
        deepstack=features[1:].contiguous() if deepstack else None,
        index=index,
        stamp_ns=patch * 2_000_000_000,
        patch=patch,
        place=index % PLACES,
        source=zeros,
        pose_id=zeros - 1,
        grid=torch.tensor([9, 17]).expand(count, 2),
    )


def chosen(similarity: Tensor, rule: str, budget: int) -> Tensor:
    """Return the kept positions of the two raster rules."""
    keep = rules.keep_paper if rule == "paper" else rules.keep_released
    return keep(torch.cat([similarity, similarity.new_zeros(1)]), budget)


def release_step(kept: Tensor, new: Tensor, rule: str, budget: int) -> tuple[Tensor, Tensor]:
    """Step as in the release: concatenate, normalise, multiply, choose, gather. Return kept rows and positions."""
    buffer = torch.cat([kept, new])
    unit = torch.nn.functional.normalize(buffer, dim=1)
    similarity = (unit[:-1] * unit[1:]).sum(1)
    keep = chosen(similarity, rule, budget)
    return buffer[keep], keep


def timed(function: Callable[[], object]) -> tuple[float, object]:
    """Return the wall seconds of one call, and its result."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def measure(
    budget: int, step: int, width: int, deepstack: int, rule: str, steps: int, seed: int = 0
) -> list[dict[str, Any]]:
    """Run a stream all three ways for `steps` steps after the memory is full, and compare what they keep.

    Returns:
        One row per step: seconds of each way, similarities computed, bytes of features read and written.

    Raises:
        ValueError: the budget is not a multiple of the step.
        AssertionError: the kept sets differ.
    """
    if budget % step:
        raise ValueError(f"budget: {budget} is not a multiple of the step {step}")
    rows, held = _beside_release(budget, step, width, deepstack, rule, steps, seed)
    # Run the stream a second time, so that two full memories never exist at once.
    generator = torch.Generator().manual_seed(seed)
    memory = TokenMemory(TokenMemoryConfig(budget, step, rule))
    for i, first in enumerate(range(0, budget + (steps + 1) * step, step)):
        batch = chunk(first, step, width, deepstack, generator)
        memory.forget_similarities()
        seconds, _ = timed(lambda b=batch: memory.append(b))
        if first >= budget:
            row = i - budget // step
            rows[row]["recompute_s"] = seconds
            assert torch.equal(memory.table()[:, 0], held[row]), "the kept sets differ"
    return rows[1:]  # skip the first step, which computes every pair; later ones are typical of a long stream


def _beside_release(
    budget: int, step: int, width: int, deepstack: int, rule: str, steps: int, seed: int
) -> tuple[list[dict[str, Any]], list[Tensor]]:
    """Run our step and the release's on the same tokens. Return figures, and the indices kept after each step."""
    generator = torch.Generator().manual_seed(seed)
    ours = TokenMemory(TokenMemoryConfig(budget, step, rule))
    kept = torch.empty(budget, width * (1 + deepstack))
    index = torch.arange(budget)
    rows, held = [], []
    for first in range(0, budget + (steps + 1) * step, step):
        batch = chunk(first, step, width, deepstack, generator)
        if first < budget:
            ours.append(batch)
            kept[first : first + step] = batch.features()
            continue
        before = ours.work
        ours_s, _ = timed(lambda b=batch: ours.append(b))
        work = {name: number - before[name] for name, number in ours.work.items()}
        features = batch.features()
        release_s, (kept, positions) = timed(lambda k=kept, f=features: release_step(k, f, rule, budget))
        index = torch.cat([index, batch.index])[positions]
        assert torch.equal(ours.table()[:, 0], index), "the kept sets differ"
        rows.append({"ours_s": ours_s, "release_s": release_s, **work})
        held.append(index)
    return rows, held


def release_bytes(budget: int, step: int, width: int) -> int:
    """Bytes read and written by the release's step: concatenation, norms, quotients, product, sum, gather."""
    full = (budget + step) * width * 4
    return 2 * full + full + 2 * full + 3 * full + full + 2 * budget * width * 4


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure. Raises if the kept sets differ."""
    rows = measure(args.budget, args.step, args.token_width, args.deepstack, args.rule, args.token_steps)
    width = args.token_width * (1 + args.deepstack)
    return {
        "rule": args.rule,
        "budget": args.budget,
        "step": args.step,
        "width": width,
        "release_bytes": release_bytes(args.budget, args.step, width),
        "steps": rows,
    }


def tables(results: dict[str, Any]) -> list[Table]:
    """Make a table with one row per step."""
    title = f"A step of the token memory: N {results['budget']}, step {results['step']}, width {results['width']}"
    table = Table("seconds", "full recompute", "the release's way", "similarities", "GB moved", title=title)
    for row in results["steps"]:
        moved = (row["bytes_read"] + row["bytes_written"]) / 1e9
        table.add_row(
            f"{row['ours_s']:.2f}",
            f"{row['recompute_s'] / row['ours_s']:.2f}x",
            f"{row['release_s'] / row['ours_s']:.2f}x",
            f"{row['similarities']} of {results['budget'] + results['step'] - 1}",
            f"{moved:.2f} of {results['release_bytes'] / 1e9:.2f}",
        )
    return [table]
