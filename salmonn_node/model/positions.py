"""M-RoPE positions (time, row, column) of a whole prompt, as the public release numbers it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from salmonn_node.model.tokenizer import SpecialIds


def mrope_positions(ids: Sequence[int], grids: Sequence[tuple[int, int]], specials: SpecialIds) -> tuple[Tensor, int]:
    """Number an unsliced prompt.

    A pointer p counts ordinary tokens (text, marks, audio pads): (p, p, p), then p + 1. A block of video pads of a
    merged grid
    (h, w) gets (p, p + row, p + column) in raster order, then p + max(h, w). As many blocks are placed as there are
    vision_start tokens followed by a video pad; they are taken in the order of the pads, and pads beyond are ordinary
    tokens.

    Args:
        ids: the prompt.
        grids: merged grid of each temporal patch in order.
        specials: the ids that structure a prompt.

    Returns:
        (3, L) int64 positions, and the position of the first generated token.

    Raises:
        ValueError: fewer video pads than the placed grids need.
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
            rows.append(block_positions(pointer, high, wide))
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


def text_positions(pointer: int, count: int) -> Tensor:
    """(3, count) positions of ordinary tokens from `pointer` on."""
    return torch.arange(pointer, pointer + count).expand(3, -1)


def block_positions(pointer: int, high: int, wide: int) -> Tensor:
    """(3, high * wide) positions of a video block, raster order."""
    return place_positions(pointer, torch.arange(high * wide), wide)


def place_positions(pointer: int, places: Tensor, wide: int) -> Tensor:
    """(3, n) positions of raster places in a video block of width `wide`."""
    places = places.long()
    return torch.stack([torch.full_like(places, pointer), pointer + places // wide, pointer + places % wide])
