"""Prompt blocks: a temporal patch with its sound, or sound alone, and the position of each part."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Block:
    """A temporal patch with its sound, or a stretch of sound without a camera.

    Its order in the prompt: time mark, vision_start, video pads, audio pads, vision_end.

    Attributes:
        patch: number of the patch, -1 for sound alone.
        source: id of the camera, -1 for sound alone.
        start_ns: stamp of its first frame or sound.
        grid: merged grid (h, w), (0, 0) for sound alone.
        mark: its time mark, and how many tokens that is.
        audio: runs of audio token indices (first, count).
        position: position of the mark's first token, relative to the first block; -1 while open.
        marked, placed: False only in thinned prompts of the release.
    """

    patch: int
    source: int
    start_ns: int
    grid: tuple[int, int]
    mark: str
    mark_tokens: int
    audio: list[tuple[int, int]] = field(default_factory=list)
    position: int = -1
    marked: bool = True
    placed: bool = True

    def copy(self) -> Block:
        """Return an independent copy. `dataclasses.replace` takes several times longer, and a view copies hundreds."""
        return Block(
            self.patch, self.source, self.start_ns, self.grid, self.mark, self.mark_tokens, list(self.audio),
            self.position, self.marked, self.placed,
        )  # fmt: skip

    @property
    def audio_count(self) -> int:
        """Audio tokens of the block."""
        return sum(count for _, count in self.audio)

    @property
    def text_before(self) -> int:
        """Text tokens before the pads."""
        return (self.mark_tokens + (1 if self.grid[0] else 0)) if self.marked else 0

    @property
    def text_after(self) -> int:
        """Text tokens after the pads."""
        return 1 if self.marked and self.grid[0] else 0

    @property
    def video_position(self) -> int:
        """Position of the first video pad."""
        return self.position + self.text_before

    @property
    def audio_position(self) -> int:
        """Position of the first audio pad."""
        return self.video_position + (max(self.grid) if self.placed else self.grid[0] * self.grid[1])

    @property
    def extent(self) -> int:
        """Number of positions that the block takes."""
        return self.audio_position - self.position + self.audio_count + self.text_after


@dataclass(frozen=True)
class AudioRun:
    """A run of audio tokens: token `first + i` covers [start_ns + i * step_ns, start_ns + (i + 1) * step_ns)."""

    first: int
    start_ns: int
    count: int
    step_ns: int


FIELDS = tuple(f.name for f in dataclasses.fields(Block))


def block_values(block: Block) -> tuple[Any, ...]:
    """Return a block's fields in order, for JSON. `dataclasses.astuple` is too slow: it makes deep copies."""
    return tuple(list(v) if isinstance(v := getattr(block, name), list) else v for name in FIELDS)


def read_block(values: Sequence[Any]) -> Block:
    """Make a block from `block_values` after a round trip through JSON."""
    block = Block(*values)
    block.grid = (int(block.grid[0]), int(block.grid[1]))
    block.audio = [(int(a), int(b)) for a, b in block.audio]
    return block
