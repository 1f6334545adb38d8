"""The training data on disk: which worlds are rendered, and a folder of their shards that fills up and resumes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from salmonn_node.lab.world.shards import Shard, make_shard, read_shard, write_shard
from salmonn_node.lab.world.stream import World

WIDTH_PX, HEIGHT_PX = 128, 72
SECONDS = 480


@dataclass(frozen=True)
class WorldSet:
    """Worlds of one purpose: seeds `first`, `first + 1`, ...; every `sparse_every`-th is a sparse one.

    Attributes:
        name: folder of the shards.
        first: first seed.
        count: number of worlds.
        sparse_every: one sparse world in so many, the others are dense; 0: all dense.
        seconds: length of each.
    """

    name: str
    first: int
    count: int
    sparse_every: int = 4
    seconds: int = SECONDS

    def worlds(self) -> Iterator[tuple[int, bool]]:
        """(seed, dense) of each world."""
        for i in range(self.count):
            yield self.first + i, not self.sparse_every or i % self.sparse_every != self.sparse_every - 1


# 80 * 480 = 38 400 rendered training frames. The others lie beyond the seeds that training may use.
TRAIN = WorldSet("train", 1_000, 80)
CALIBRATE = WorldSet("calibrate", 300_000, 16, 2)
HELD_OUT = WorldSet("held_out", 400_000, 20, 2)
# A hundred times the visual budget: three and a half hours in one flat each.
LONG_SPARSE = WorldSet("long", 420_000, 3, 1, 12_800)
LONG_DENSE = WorldSet("long", 430_000, 1, 0, 12_800)


def shard_path(folder: Path, worlds: WorldSet, seed: int) -> Path:
    """Where a world's shard lies."""
    return folder / worlds.name / f"{seed}.safetensors"


def render(folder: Path, worlds: WorldSet, part: int = 0, parts: int = 1) -> int:
    """Render what is missing; returns how many shards were made. Needs OpenGL.

    Args:
        folder: of all training data.
        worlds: which worlds.
        part: of `parts` processes that share the work.
        parts: how many there are.
    """
    made = 0
    for number, (seed, dense) in enumerate(worlds.worlds()):
        path = shard_path(folder, worlds, seed)
        if number % parts != part or path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".part{os.getpid()}")
        write_shard(partial, make_shard(World(seed, worlds.seconds, dense), WIDTH_PX, HEIGHT_PX))
        partial.replace(path)
        made += 1
    return made


def shards(folder: Path, worlds: WorldSet) -> Iterator[Shard]:
    """The shards of a set in order of seed.

    Raises:
        FileNotFoundError: one has not been rendered.
    """
    for seed, _ in worlds.worlds():
        yield read_shard(shard_path(folder, worlds, seed))
