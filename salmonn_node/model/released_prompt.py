"""Prompt of the public release for a whole recording: text, audio pads, layout and M-RoPE positions.

The released mode and the golden checks use it. The node builds its prompt as the stream runs (`model/timeline.py`), and
gets the same positions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from salmonn_node.model.blocks import Block
from salmonn_node.model.chat_format import ASSISTANT, END, USER, ChatFormat
from salmonn_node.model.prompt import (
    MAX_MARKED_PATCHES,
    marked_patches,
    place_positions,
    text_positions,
)
from salmonn_node.model.tokenizer import SpecialIds


def patch_time(first_s: float, second_s: float | None) -> float:
    """Time of a temporal patch: the mean time of its frames. A missing second frame repeats the first."""
    return (first_s + (first_s if second_s is None else second_s)) / 2


def audio_pads(patches: int, tokens: int, second: float | None) -> list[int]:
    """Number of audio pads of each patch, for a whole recording, as the release splits them.

    Args:
        patches: number of temporal patches, at least 1.
        tokens: total number of audio tokens, 2 a second, including the padding of the last window.
        second: seconds per patch. None spreads the tokens evenly.

    Raises:
        ValueError: the audio ends before the last patch begins.
    """
    if second is not None:
        starts = [int(np.float32(t * second * 2)) for t in range(patches)]
        if tokens < starts[-1]:
            raise ValueError(f"{tokens} audio tokens end before the last patch, which begins at token {starts[-1]}")
        return [b - a for a, b in zip(starts, [*starts[1:], tokens], strict=True)]
    counts = [tokens // patches] * patches
    rest = tokens % patches
    for i in range(1, rest + 1):
        counts[i * patches // rest - 1] += 1
    return counts


def render_turn(
    user: str, marks: Sequence[str], video_pads: int, pads: Sequence[int] | None, answer: str | None = None
) -> str:
    """Render the text of a user turn over one video, and of the assistant's turn if `answer` is given."""
    shown = set(marked_patches(len(marks), pads is not None))
    parts = []
    for patch, mark in enumerate(marks):
        body = "<|video_pad|>" * video_pads + "<|audio_pad|>" * (pads[patch] if pads else 0)
        parts.append(f"{mark}<|vision_start|>{body}<|vision_end|>" if patch in shown else body)
    before, after = ChatFormat().split(user)
    text = USER + before + "".join(parts) + after + END
    return text if answer is None else text + ASSISTANT + answer + END


def released_layout(blocks: Sequence[Block], audio_tokens: int, second: float) -> tuple[list[Block], int]:
    """Lay out the blocks of a whole recording as the release does. Marks are thinned beyond 6 000 patches."""
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


def mrope_positions(ids: Sequence[int], grids: Sequence[tuple[int, int]], specials: SpecialIds) -> tuple[Tensor, int]:
    """Compute the M-RoPE positions of an unsliced prompt.

    A pointer p counts ordinary tokens (text, marks, audio pads). Each gets (p, p, p), then p grows by 1. A block of
    video pads with the merged grid (h, w) gets (p, p + row, p + column) in raster order, then p grows by max(h, w).
    There are as many placed blocks as vision_start tokens directly before a video pad. Blocks are placed in the order
    of the pads. Pads beyond them are ordinary tokens.

    Args:
        ids: the prompt.
        grids: merged grid of each temporal patch in order.
        specials: the ids that structure a prompt.

    Returns:
        (3, L) int64 positions, and the position of the first generated token.

    Raises:
        ValueError: there are fewer grids or fewer video pads than the placed blocks need.
    """
    count = len(ids)
    starts = sum(1 for i in range(count - 1) if ids[i] == specials.vision_start and ids[i + 1] == specials.video_pad)
    if starts > len(grids):
        raise ValueError(f"{starts} video blocks in the prompt, but only {len(grids)} grids")
    rows: list[Tensor] = []
    pointer = placed = i = 0
    while i < count:
        if ids[i] == specials.video_pad and placed < starts:
            high, wide = grids[placed]
            if any(token != specials.video_pad for token in ids[i : i + high * wide]) or i + high * wide > count:
                raise ValueError(f"video block {placed} has fewer than {high}x{wide} pads")
            rows.append(place_positions(pointer, torch.arange(high * wide), wide))
            pointer += max(high, wide)
            placed += 1
            i += high * wide
            continue
        j = i + 1
        while j < count and not (ids[j] == specials.video_pad and placed < starts):
            j += 1
        rows.append(text_positions(pointer, j - i))
        pointer += j - i
        i = j
    return torch.cat(rows, dim=1) if rows else torch.zeros(3, 0, dtype=torch.int64), pointer
