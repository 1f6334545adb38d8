"""Where each temporal patch and audio token stands in the unsliced prompt, known as the stream runs, in bounded state.

A block is a time mark, vision_start, the patch's video pads, its audio pads, vision_end. Its position is known for
good once
the sound before it is known, so blocks are closed in order; a closed block without a kept token is forgotten, and the
pointer remembers its length. That is how positions stay those of the release while the state stays small.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from salmonn_node.model.prompt import MAX_MARKED_PATCHES, audio_pads, marked_patches, time_mark
from salmonn_node.stream.observations import SECOND_NS

# A block takes sound until the next block begins, but not for longer than this beyond its start.
REACH_NS = 10 * SECOND_NS
# Positions left free for the question and the answer.
RESERVED_POSITIONS = 4_096


@dataclass
class Block:
    """A temporal patch with its sound, or a stretch of sound without a camera.

    Attributes:
        patch: number of the patch, -1 for sound alone.
        source: id of the camera, -1 for sound alone.
        start_ns: stamp of its first frame or sound.
        grid: merged grid (h, w), (0, 0) for sound alone.
        mark: its time mark, and how many tokens that is.
        audio: runs of audio token indices (first, count).
        position: of the mark's first token, relative to the first block; -1 while open.
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
        """Positions that the block takes."""
        return self.audio_position - self.position + self.audio_count + self.text_after


@dataclass(frozen=True)
class AudioRun:
    """Audio tokens of equal step: token `first + i` covers [start_ns + i * step_ns, + step_ns)."""

    first: int
    start_ns: int
    count: int
    step_ns: int


class Timeline:
    """Blocks of the stream in order of time.

    Args:
        count_tokens: number of tokens of a time mark's text.
        keep_all: never forget a block (time_marks "all").
        max_position: positions the language model was made for; beyond, gaps between kept blocks are closed.
    """

    def __init__(self, count_tokens: Callable[[str], int], keep_all: bool, max_position: int) -> None:
        self._count_tokens = count_tokens
        self.keep_all = keep_all
        self.max_position = max_position
        self.origin_ns: int | None = None
        self.closed: list[Block] = []
        self.open: list[Block] = []
        self.pointer = 0
        self.patches = 0
        self.compactions = 0
        self.prune_at = 1
        self.rows = self.read_until = 0
        self.sound_until_ns: int | None = None

    def begin(self, stamp_ns: int) -> None:
        """The first observation sets the origin of the time marks."""
        if self.origin_ns is None:
            self.origin_ns = stamp_ns

    def seconds(self, stamp_ns: int) -> float:
        """Seconds since the first observation."""
        return (stamp_ns - (self.origin_ns or 0)) / SECOND_NS

    def block(self, patch: int, source: int, stamps_ns: Sequence[int], grid: tuple[int, int], name: str) -> Block:
        """A block for a temporal patch of these frames, not yet part of the timeline."""
        mean_s = sum(self.seconds(stamp) for stamp in stamps_ns) / len(stamps_ns)
        mark = time_mark(mean_s, name)
        return Block(patch, source, stamps_ns[0], grid, mark, self._count_tokens(mark))

    def add_patch(self, block: Block) -> None:
        """Take in a whole temporal patch."""
        bisect.insort(self.open, block, key=lambda b: b.start_ns)
        self.patches += 1

    def add_sound(self, run: AudioRun) -> None:
        """Take in committed audio tokens, and close the blocks whose sound is complete."""
        self.open = self._with_sound(self.open, run)
        end = run.start_ns + run.count * run.step_ns
        self.sound_until_ns = end if self.sound_until_ns is None else max(end, self.sound_until_ns)

    def close(self, patience_ns: int) -> None:
        """Fix the position of blocks whose sound is complete, or `patience_ns` older than the newest block."""
        while len(self.open) > 1:
            after = self.open[1].start_ns
            # Before the first sound nothing is complete: it may only be late, and positions must not depend on that.
            complete = self.sound_until_ns is not None and after <= self.sound_until_ns
            if not complete and self.open[-1].start_ns - after <= patience_ns:
                return
            block = self.open.pop(0)
            block.position = self.pointer
            self.pointer += block.extent
            self.rows += block.grid[0] * block.grid[1] + block.audio_count + block.text_before + block.text_after
            self.closed.append(block)

    def _with_sound(self, blocks: list[Block], run: AudioRun) -> list[Block]:
        """Blocks with a run of audio tokens added: each goes to the last block that begins before the token ends."""
        blocks = [dataclasses.replace(b, audio=list(b.audio)) for b in blocks]
        for i in range(run.count):
            start = run.start_ns + i * run.step_ns
            at = bisect.bisect_left(blocks, start + run.step_ns, key=lambda b: b.start_ns) - 1
            if at < 0 and blocks and blocks[0].start_ns - start <= REACH_NS:
                at = 0
            if at < 0 or start - blocks[at].start_ns >= REACH_NS:
                mark = time_mark(self.seconds(start))
                block = Block(-1, -1, start, (0, 0), mark, self._count_tokens(mark))
                at += 1
                blocks.insert(at, block)
            target = blocks[at].audio
            if target and target[-1][0] + target[-1][1] == run.first + i:
                target[-1] = (target[-1][0], target[-1][1] + 1)
            else:
                target.append((run.first + i, 1))
        return blocks

    def layout(self, tail: Sequence[Block] = (), sound: Sequence[AudioRun] = ()) -> tuple[list[Block], int]:
        """Remembered and provisional blocks with positions, and the position after them; nothing changes here."""
        blocks = sorted([*self.open, *tail], key=lambda b: b.start_ns)
        blocks = [dataclasses.replace(b, audio=list(b.audio)) for b in blocks]
        for run in sound:
            blocks = self._with_sound(blocks, run)
        pointer = self.pointer
        for block in blocks:
            block.position = pointer
            pointer += block.extent
        return [*self.closed, *blocks], pointer

    def prune(self, patches: Collection[int], audio: Sequence[int]) -> None:
        """Forget closed blocks none of whose tokens is kept; close gaps when positions run out.

        Args:
            patches: numbers of the patches with a kept or waiting token.
            audio: kept and waiting audio indices, ascending.
        """
        if self.keep_all:
            return
        wanted = set(patches)
        self.closed = [b for b in self.closed if b.patch in wanted or _any_kept(b.audio, audio)]
        if self.pointer > self.max_position - RESERVED_POSITIONS:
            self._compact()

    def _compact(self) -> None:
        """Close gaps between remembered blocks, the longest first, to the largest bound that frees half of the range.

        Order, blocks and gaps below the bound stay as they are. When even without gaps the blocks do not fit in half
        of the range, they are laid end to end.
        """
        room = (self.max_position - RESERVED_POSITIONS) // 2
        gaps, end = [], 0
        for block in self.closed:
            gaps.append(block.position - end)
            end = block.position + block.extent
        room -= sum(block.extent for block in self.closed)
        bound = _largest_bound(gaps, room)
        pointer = 0
        for block, gap in zip(self.closed, gaps, strict=True):
            pointer += min(gap, bound)
            block.position = pointer
            pointer += block.extent
        self.pointer = pointer
        self.compactions += 1

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "origin_ns": self.origin_ns,
            "pointer": self.pointer,
            "patches": self.patches,
            "compactions": self.compactions,
            "prune_at": self.prune_at,
            "rows": self.rows,
            "read_until": self.read_until,
            "sound_until_ns": self.sound_until_ns,
            "closed": [_values(b) for b in self.closed],
            "open": [_values(b) for b in self.open],
        }

    def restore(self, values: dict[str, Any]) -> None:
        """Read `to_dict`'s values."""
        self.closed, self.open = ([_block(v) for v in values[name]] for name in ("closed", "open"))
        for name in (
            "origin_ns",
            "pointer",
            "patches",
            "compactions",
            "sound_until_ns",
            "prune_at",
            "rows",
            "read_until",
        ):
            setattr(self, name, values[name])

    def copy(self) -> Timeline:
        """An independent timeline."""
        other = Timeline(self._count_tokens, self.keep_all, self.max_position)
        other.restore(self.to_dict())
        return other


def released_layout(blocks: Sequence[Block], audio_tokens: int, second: float) -> tuple[list[Block], int]:
    """Blocks of a whole recording as the release lays them out: marks thinned beyond 6 000 patches."""
    counts = audio_pads(len(blocks), audio_tokens, second) if audio_tokens and blocks else [0] * len(blocks)
    shown = set(marked_patches(len(blocks), audio_tokens > 0))
    laid, pointer, first = [], 0, 0
    for i, (block, count) in enumerate(zip(blocks, counts, strict=True)):
        audio = [(first, count)] if count else []
        placed = len(shown) == len(blocks) or i < min(len(shown), MAX_MARKED_PATCHES)
        block = dataclasses.replace(block, audio=audio, position=pointer, marked=i in shown, placed=placed)
        first += count
        pointer += block.extent
        laid.append(block)
    return laid, pointer


def _any_kept(runs: Sequence[tuple[int, int]], kept: Sequence[int]) -> bool:
    for first, count in runs:
        at = bisect.bisect_left(kept, first)
        if at < len(kept) and kept[at] < first + count:
            return True
    return False


def _largest_bound(gaps: Sequence[int], room: int) -> int:
    """The largest bound on each gap with which the gaps fit `room`; 0 when none does."""
    low, high = 0, max(gaps, default=0)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(min(gap, middle) for gap in gaps) <= room:
            low = middle
        else:
            high = middle - 1
    return low


FIELDS = tuple(f.name for f in dataclasses.fields(Block))


def _values(block: Block) -> tuple[Any, ...]:
    """A block's fields in order: `dataclasses.astuple` without its deep copies, which each question waits for."""
    return tuple(list(v) if isinstance(v := getattr(block, name), list) else v for name in FIELDS)


def _block(values: Sequence[Any]) -> Block:
    block = Block(*values)
    block.grid = (int(block.grid[0]), int(block.grid[1]))
    block.audio = [(int(a), int(b)) for a, b in block.audio]
    return block
