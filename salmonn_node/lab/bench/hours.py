"""Hours benchmark: run three hours of frames through the whole memory. Does it stay constant in size, and finite?"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from salmonn_node.memory.stream_memory import StreamMemory, TokenBatch, TokenMemoryConfig
from salmonn_node.ttt.layer import TTTConfig, TTTLayer

HEIGHT, WIDTH = 9, 17  # merged tokens of a 288 x 544 frame
FRAMES_PER_PATCH, PATCH_NS = 2, 2_000_000_000
SAMPLES = 200
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#8c564b", "#e377c2")


def make_memory(args: argparse.Namespace, optimizer: str) -> StreamMemory:
    """Make a memory with full budgets and mini-batch, few channels, and an untrained layer with its gate half open."""
    torch.manual_seed(0)
    config = TTTConfig(
        hidden_size=args.channels,
        num_heads=2,
        mini_batch=args.mini_batch,
        base_lr=args.channels / 2 * args.mini_batch * (1e-3 if optimizer == "sgd" else 1.0),
        optimizer=optimizer,  # type: ignore[arg-type]
        decay=args.decay,
    )
    layer = TTTLayer(config)
    with torch.no_grad():
        layer.gating_alpha.fill_(0.5)
    visual = TokenMemoryConfig(args.visual_budget, args.visual_budget // 4, args.discard_rule)
    return StreamMemory(layer, visual, TokenMemoryConfig(args.audio_budget, args.audio_budget, "merge"))


def run_stream(args: argparse.Namespace, optimizer: str) -> dict[str, Any]:
    """Run one stream. The scene stands still, pans now and then, and has noise."""
    generator = torch.Generator().manual_seed(0)
    memory = make_memory(args, optimizer)
    tokens, patches = HEIGHT * WIDTH, args.frames // FRAMES_PER_PATCH
    wall = torch.randn(tokens, args.channels * 4, generator=generator)
    full_at, held, waiting, norms = -1, [], 0, []
    start = time.perf_counter()
    for t in range(patches):
        if t % 150 >= 120:
            wall = torch.cat([wall[9:], torch.randn(9, args.channels * 4, generator=generator)])
        z, *deep = (wall + 0.3 * torch.randn(wall.shape, generator=generator)).chunk(4, dim=1)
        batch = TokenBatch.of_patch(
            z.contiguous(),
            torch.stack(deep),
            grid=(HEIGHT, WIDTH),
            first_index=t * tokens,
            stamp_ns=t * PATCH_NS,
            patch=t,
        )
        memory.observe_visual(batch, (HEIGHT, WIDTH))
        heard = torch.randn(4, args.channels, generator=generator)  # two tokens a second
        index = 4 * t + torch.arange(4)
        zeros = torch.zeros(4, dtype=torch.int64)
        memory.observe_audio(TokenBatch(heard, None, index, zeros + t * PATCH_NS, index // 60, zeros, zeros, zeros - 1))
        parts = memory.bytes_by_part()
        waiting = max(waiting, parts.pop("waiting"))
        if full_at < 0 and memory.counters["visual_left"] and memory.counters["audio_left"]:
            full_at = t
        if full_at >= 0:
            held.append(sum(parts.values()))
        state = memory.state
        if state is not None and t % max(1, patches // SAMPLES) == 0:
            norms.append([state.updates, float(state.W1.norm()), float(state.W2.norm())])
    seconds = time.perf_counter() - start
    view, final = memory.view(), memory.state
    assert view.visual is not None
    assert view.audio is not None
    assert final is not None
    finite = all(bool(torch.isfinite(x).all()) for x in (view.visual.features(), view.audio.z, final.W1, final.W2))
    return {
        "tokens": patches * tokens,
        "updates": final.updates,
        "updates_skipped": final.skipped,
        "seconds": seconds,
        "tokens_per_s": patches * tokens / seconds,
        "full_after_patches": full_at,
        "bytes_when_full": held[0] if held else 0,
        "bytes_at_end": held[-1] if held else 0,
        "bytes_slope_per_patch": slope(held),
        "waiting_bytes_max": waiting,
        "kept": [len(view.visual), len(view.audio)],
        "finite": finite,
        "norms": norms,
    }


def slope(values: list[int]) -> float:
    """Least-squares slope. Exactly 0 for a constant."""
    if len(values) < 2 or min(values) == max(values):
        return 0.0
    y = torch.tensor(values, dtype=torch.float64)
    x = torch.arange(len(values), dtype=torch.float64)
    return float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())


def plot(results: dict[str, Any], path: Path) -> None:
    """Plot the norms of the fast weights (log scale) against updates, as an SVG."""
    width, height, left, bottom = 640, 260, 50, 30
    norms = [value for arm in results.values() for row in arm["norms"] for value in row[1:]]
    low, high = math.floor(math.log10(min(norms))), math.ceil(math.log10(max(norms)))
    right = max(arm["norms"][-1][0] for arm in results.values()) or 1

    def y(norm: float) -> float:
        return height - bottom - (math.log10(norm) - low) / max(high - low, 1) * (height - bottom - 30)

    lines = []
    for number, (arm, i) in enumerate((arm, i) for arm in results for i in (1, 2)):
        colour = COLOURS[number % len(COLOURS)]
        places = [(left + r[0] / right * (width - left - 20), y(r[i])) for r in results[arm]["norms"]]
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        lines.append(f'<polyline fill="none" stroke="{colour}" points="{points}"/>')
        lines.append(f'<text x="{left + 95 * number}" y="15" fill="{colour}">{arm} |W{i}|</text>')
    labels = [(5, y(10.0**power), f"1e{power}") for power in range(low, high + 1)]
    labels += [(left, height - 10, "0"), (width - 90, height - 10, f"{right} updates")]
    lines += [f'<text x="{x}" y="{at:.1f}">{text}</text>' for x, at, text in labels]
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
    background = f'<rect width="{width}" height="{height}" fill="white"/>'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([f'{frame} font-size="11">', background, *lines, "</svg>", ""]))


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run one stream for each update rule."""
    results = {optimizer: run_stream(args, optimizer) for optimizer in args.optimizers}
    if args.plot:
        plot(results, args.plot)
    return results


def tables(results: dict[str, Any]) -> list[Table]:
    """Make a table of the update rules side by side."""
    table = Table("figure", *results, title="Hours of frames through the whole memory")
    for name in next(iter(results.values())):
        if name == "norms":
            for label, at in (("first", 0), ("middle", 0.5), ("last", 1)):
                rows = [arm[name][int(at * (len(arm[name]) - 1))] for arm in results.values()]
                table.add_row(f"|W1|, |W2| {label}", *(f"{row[1]:.3f}, {row[2]:.3f}" for row in rows))
        else:
            values = [arm[name] for arm in results.values()]
            table.add_row(name, *(f"{v:,.1f}" if isinstance(v, float) else str(v) for v in values))
    return [table]
