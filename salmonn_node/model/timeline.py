"""Timeline: prompt positions of temporal patches and audio tokens, computed as the stream runs, with bounded state.

Positions are those of the prompt without any drops, as in the release. The position of a block is final when all sound
before it is known, so blocks are closed in order. A closed block without a kept token is forgotten; the pointer still
counts its length. So the state stays small, however long the stream is.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Collection, Sequence
from copy import copy
from typing import Any

from salmonn_node.model.blocks import AudioRun, Block, block_values, read_block
from salmonn_node.model.prompt import time_mark
from salmonn_node.stream.observations import SECOND_NS

# A block collects sound until the next block begins, but at most for this long after its own start.
REACH_NS = 10 * SECOND_NS
# Positions reserved for the question and the answer.
RESERVED_POSITIONS = 4_096


class Timeline:
    """Blocks of the stream in time order.

    Args:
        count_tokens: number of tokens of a time mark's text.
        keep_all: never forget a block (`time_marks: all`).
        max_position: number of positions that the language model supports. Beyond it, gaps between blocks are closed.
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
        """Set the origin of the time marks at the first observation."""
        if self.origin_ns is None:
            self.origin_ns = stamp_ns

    def seconds(self, stamp_ns: int) -> float:
        """Seconds since the first observation."""
        return (stamp_ns - (self.origin_ns or 0)) / SECOND_NS

    def block(self, patch: int, source: int, stamps_ns: Sequence[int], grid: tuple[int, int], name: str) -> Block:
        """Make a block for a temporal patch of these frames. It is not yet part of the timeline."""
        mean_s = sum(self.seconds(stamp) for stamp in stamps_ns) / len(stamps_ns)
        mark = time_mark(mean_s, name)
        return Block(patch, source, stamps_ns[0], grid, mark, self._count_tokens(mark))

    def add_patch(self, block: Block) -> None:
        """Add a complete temporal patch."""
        bisect.insort(self.open, block, key=lambda b: b.start_ns)
        self.patches += 1

    def add_sound(self, run: AudioRun) -> None:
        """Add committed audio tokens, and close the blocks whose sound is complete."""
        self.open = self._with_sound(self.open, run)
        end = run.start_ns + run.count * run.step_ns
        self.sound_until_ns = end if self.sound_until_ns is None else max(end, self.sound_until_ns)

    def close(self, patience_ns: int) -> None:
        """Fix the position of blocks whose sound is complete, or that are `patience_ns` older than the newest block."""
        while len(self.open) > 1:
            after = self.open[1].start_ns
            # Before the first sound, no block is complete. Sound may be late, and positions must not depend on that.
            complete = self.sound_until_ns is not None and after <= self.sound_until_ns
            if not complete and self.open[-1].start_ns - after <= patience_ns:
                return
            block = self.open.pop(0)
            block.position = self.pointer
            self.pointer += block.extent
            self.rows += block.grid[0] * block.grid[1] + block.audio_count + block.text_before + block.text_after
            self.closed.append(block)

    def _with_sound(self, blocks: list[Block], run: AudioRun) -> list[Block]:
        """Add a run of audio tokens to blocks. Each token goes to the last block that begins before the token ends."""
        blocks = [b.copy() for b in blocks]
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
        """Return remembered and provisional blocks with positions, and the position after them. Changes nothing."""
        blocks = sorted([*self.open, *tail], key=lambda b: b.start_ns)
        blocks = [b.copy() for b in blocks]
        for run in sound:
            blocks = self._with_sound(blocks, run)
        pointer = self.pointer
        for block in blocks:
            block.position = pointer
            pointer += block.extent
        return [*self.closed, *blocks], pointer

    def prune(self, patches: Collection[int], audio: Sequence[int]) -> None:
        """Forget closed blocks without a kept token, and close gaps when positions run out.

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
        """Shorten the longest gaps between remembered blocks to the largest bound that frees half of the range.

        Order, blocks and gaps below the bound do not change. If the blocks do not fit in half of the range even
        without gaps, they are placed end to end.
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
            "closed": [block_values(b) for b in self.closed],
            "open": [block_values(b) for b in self.open],
        }

    def restore(self, values: dict[str, Any]) -> None:
        """Restore the timeline from `to_dict`."""
        self.closed, self.open = ([read_block(v) for v in values[name]] for name in ("closed", "open"))
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
        """Return an independent copy."""
        other = copy(self)
        other.closed, other.open = ([b.copy() for b in blocks] for blocks in (self.closed, self.open))
        return other


def _any_kept(runs: Sequence[tuple[int, int]], kept: Sequence[int]) -> bool:
    for first, count in runs:
        at = bisect.bisect_left(kept, first)
        if at < len(kept) and kept[at] < first + count:
            return True
    return False


def _largest_bound(gaps: Sequence[int], room: int) -> int:
    """Largest bound on each gap such that all gaps fit into `room`, or 0."""
    low, high = 0, max(gaps, default=0)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(min(gap, middle) for gap in gaps) <= room:
            low = middle
        else:
            high = middle - 1
    return low
