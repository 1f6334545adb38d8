"""Discard benchmark: which events does each discard rule still hold after an hour?

The stream is generated from features, not from images: a camera of 9 x 17 places, and a temporal patch every two
seconds. While the camera stands still, a place shows its wall with drifting light and noise, and objects appear at a
few places for some seconds. While it moves, the view pans over new walls. An event counts as held if a kept row has a
cosine of at least 0.8 with what was seen of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from safetensors.torch import load_file
from torch import Tensor

from salmonn_node.memory.token_memory import TokenBatch, TokenMemory, TokenMemoryConfig

HEIGHT, WIDTH, CHANNELS = 9, 17, 64
PATCH_S = 2
ARMS = ("recent", "fifo", "uniform", "released", "paper", "merge", "place", "ends")
STATIC_ARMS = ("released", "paper", "place", "ends")
SAME = 0.8


@dataclass(frozen=True)
class SceneEvent:
    """An object: its patches [start, end), the places it covers, and its features there (places, C)."""

    start: int
    end: int
    places: Tensor
    look: Tensor


@dataclass(frozen=True)
class Scene:
    """A kind of hour: seconds still and seconds moving, in turn; number of events; noise (walls have norm 1)."""

    name: str
    still_s: int
    moving_s: int
    events: int = 60
    noise: float = 0.1
    drift: float = 0.2


SCENES = (
    Scene("still for an hour", 3600, 0),
    Scene("5 min still, 1 min moving", 300, 60),
    Scene("always moving", 0, 3600),
)


def unit(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Random unit vectors."""
    return torch.nn.functional.normalize(torch.randn(shape, generator=generator), dim=-1)


def make_events(scene: Scene, patches: int, generator: torch.Generator) -> list[SceneEvent]:
    """Make objects of 2 x 2 to 3 x 3 places, seen for 4 to 40 s."""
    events = []
    for _ in range(scene.events):
        start = int(torch.randint(0, patches - 20, (1,), generator=generator))
        length = int(torch.randint(2, 21, (1,), generator=generator))
        size = int(torch.randint(2, 4, (1,), generator=generator))
        top = int(torch.randint(0, HEIGHT - size, (1,), generator=generator))
        left = int(torch.randint(0, WIDTH - size, (1,), generator=generator))
        rows, columns = torch.meshgrid(torch.arange(top, top + size), torch.arange(left, left + size), indexing="ij")
        places = (rows * WIDTH + columns).reshape(-1)
        look = unit((1, CHANNELS), generator) + 0.5 * unit((len(places), CHANNELS), generator)
        events.append(SceneEvent(start, start + length, places, torch.nn.functional.normalize(look, dim=1)))
    return events


def stream(scene: Scene, events: list[SceneEvent], patches: int, generator: torch.Generator) -> Iterator[TokenBatch]:
    """Yield the temporal patches of the hour."""
    wall = unit((HEIGHT, WIDTH, CHANNELS), generator)
    light = unit((CHANNELS,), generator)
    period = scene.still_s + scene.moving_s
    for t in range(patches):
        if (
            t and (t * PATCH_S) % period >= scene.still_s
        ):  # pan: every place shows its neighbour, and a new column enters
            wall = torch.cat([wall[:, 1:], unit((HEIGHT, 1, CHANNELS), generator)], dim=1)
        seen = wall.reshape(-1, CHANNELS).clone()
        for event in events:
            if event.start <= t < event.end:
                seen[event.places] = event.look
        seen += scene.drift * torch.sin(torch.tensor(t / 300.0)) * light
        seen += scene.noise * unit((HEIGHT * WIDTH, CHANNELS), generator)
        yield TokenBatch.of_patch(
            seen,
            grid=(HEIGHT, WIDTH),
            first_index=t * HEIGHT * WIDTH,
            stamp_ns=t * PATCH_S * 1_000_000_000,
            patch=t,
        )


def held(events: list[SceneEvent], kept: TokenBatch) -> float:
    """Share of events of which at least one place is still recognisable."""
    rows = torch.nn.functional.normalize(kept.z, dim=1)
    found = sum(bool(((event.look @ rows.T) >= SAME).any()) for event in events)
    return found / len(events)


def run_scene(scene: Scene, budget: int, step: int, seed: int, patches: int = 1800) -> dict[str, float]:
    """Share of events held by each rule."""
    generator = torch.Generator().manual_seed(seed)
    events = make_events(scene, patches, generator)
    memories = {rule: TokenMemory(TokenMemoryConfig(budget, step, rule)) for rule in ARMS}
    for batch in stream(scene, events, patches, generator):
        for memory in memories.values():
            memory.append(batch)
    for memory in memories.values():
        memory.settle()
    return {rule: held(events, memory.view()) for rule, memory in memories.items()}


def run_static(path: Path) -> list[dict]:
    """Run the static stream of the golden vectors. Count the scenes and places that a kept token shows."""
    z = load_file(path)["static.x"]
    starts = [0, 7, 8, 25, 26, 27, 50]
    places = 6
    index = torch.arange(len(z))
    scene = torch.bucketize(index // places, torch.tensor(starts), right=True) - 1
    rows = []
    for budget, step in ((64, 32), (30, 7)):
        row: dict = {"budget": budget, "step": step}
        for rule in STATIC_ARMS:
            memory = TokenMemory(TokenMemoryConfig(budget, step, rule))
            for start in range(0, len(z), places):
                patch = z[start : start + places]
                memory.append(
                    TokenBatch.of_patch(patch, grid=(2, 3), first_index=start, stamp_ns=start, patch=start // 6)
                )
            memory.settle()
            kept = memory.view().index
            pairs = {(int(s), int(p)) for s, p in zip(scene[kept], kept % places, strict=True)}
            row[rule] = {"scenes": len({s for s, _ in pairs}), "places": len(pairs)}
        row["of"] = {"scenes": len(starts), "places": len(starts) * places}
        rows.append(row)
    return rows


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Compare the rules."""
    hour = []
    for scene in SCENES:
        for budget in args.budgets:
            scores = [run_scene(scene, budget, budget // 4, seed) for seed in range(args.seeds)]
            mean = {rule: sum(s[rule] for s in scores) / len(scores) for rule in ARMS}
            hour.append({"scene": scene.name, "budget": budget, **mean})
    return {"hour": hour, "static": run_static(args.static) if args.static.exists() else []}


def tables(results: dict[str, Any]) -> list[Table]:
    """Make the tables of events held after the hour and of the static stream."""
    hour = Table("scene", "N", *ARMS, title="Share of the events of an hour that are still held")
    for row in results["hour"]:
        hour.add_row(row["scene"], str(row["budget"]), *(f"{row[rule]:.2f}" for rule in ARMS))
    static = Table("N", "rule", "scenes held", "places of scenes held", title="Golden static stream")
    for row in results["static"]:
        for rule in STATIC_ARMS:
            counts = [f"{row[rule][name]} of {row['of'][name]}" for name in ("scenes", "places")]
            static.add_row(str(row["budget"]), rule, *counts)
    return [hour, static]
