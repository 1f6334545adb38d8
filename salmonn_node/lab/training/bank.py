"""Training data on disk: the sets of worlds to render, and a folder of their shards. Rendering resumes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from salmonn_node.lab.world.shards import Shard, make_shard, read_shard, write_shard
from salmonn_node.lab.world.stream import World

WIDTH_PX, HEIGHT_PX = 128, 72
SECONDS = 480


@dataclass(frozen=True)
class WorldSet:
    """A set of worlds with seeds `first`, `first + 1`, ... Every `sparse_every`-th world is sparse.

    Attributes:
        name: name of the folder of shards.
        first: first seed.
        count: number of worlds.
        sparse_every: one world in this many is sparse, the others are dense. 0: all are dense.
        seconds: length of each world.
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


# 80 * 480 = 38 400 rendered training frames. The seeds of the other sets are not allowed in training.
TRAIN = WorldSet("train", 1_000, 80)
CALIBRATE = WorldSet("calibrate", 300_000, 16, 2)
# Hours of one flat, to see how likely what was told as an event was really there.
HOURS_SPARSE = WorldSet("hours_sparse", 2_100, 1, 1, 7_200)
HOURS_DENSE = WorldSet("hours_dense", 2_101, 1, 0, 7_200)
# Flats of hours that nothing else is fitted to, for the temperatures of confidences of answers from events.
CONFIDENCE_DENSE = WorldSet("confidence", 2_110, 3, 0, 12_800)
CONFIDENCE_SPARSE = WorldSet("confidence", 2_113, 2, 1, 12_800)
HELD_OUT = WorldSet("held_out", 400_000, 20, 2)
# A hundred times the visual budget: three and a half hours in one flat per world.
LONG_SPARSE = WorldSet("long", 420_000, 3, 1, 12_800)
LONG_DENSE = WorldSet("long", 430_000, 3, 0, 12_800)


def shard_path(folder: Path, worlds: WorldSet, seed: int) -> Path:
    """Path of a world's shard."""
    return folder / worlds.name / f"{seed}.safetensors"


def render(
    folder: Path,
    worlds: WorldSet,
    part: int = 0,
    parts: int = 1,
    report: Callable[[str], None] = lambda line: None,
) -> int:
    """Render the missing shards and return how many were made. Needs OpenGL.

    Args:
        folder: folder of all training data.
        worlds: worlds to render.
        part: number of this process, of `parts` that share the work.
        parts: number of processes.
        report: takes a line before each world that is rendered.
    """
    made = 0
    for number, (seed, dense) in enumerate(worlds.worlds()):
        path = shard_path(folder, worlds, seed)
        if number % parts != part or path.exists():
            continue
        report(f"rendering world {seed} of {worlds.name}, {worlds.seconds} s of stream")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".part{os.getpid()}")
        write_shard(partial, make_shard(World(seed, worlds.seconds, dense), WIDTH_PX, HEIGHT_PX))
        partial.replace(path)
        made += 1
    return made


def shards(folder: Path, worlds: WorldSet) -> Iterator[Shard]:
    """Yield the shards of a set in order of seed.

    Raises:
        FileNotFoundError: a shard has not been rendered.
    """
    for seed, _ in worlds.worlds():
        yield read_shard(shard_path(folder, worlds, seed))
