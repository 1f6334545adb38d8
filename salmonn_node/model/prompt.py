"""Parts of a prompt: time marks, and M-RoPE positions (time, row, column) of tokens."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

MAX_MARKED_PATCHES = 6_000


def time_mark(seconds: float, source: str = "") -> str:
    """Return the time mark before a temporal patch. With several cameras, it contains the camera's name."""
    return f"<{source} {seconds:.1f} seconds>" if source else f"<{seconds:.1f} seconds>"


def marked_patches(patches: int, with_audio: bool, limit: int = MAX_MARKED_PATCHES) -> list[int]:
    """Return the patches that have a time mark, vision_start and vision_end: all, or `limit` evenly spaced ones."""
    if not with_audio or patches <= limit:
        return list(range(patches))
    return np.unique(np.linspace(0, patches - 1, limit).astype(np.int64)).tolist()


def text_positions(pointer: int, count: int) -> Tensor:
    """(3, count) int64: positions of ordinary tokens from `pointer` on."""
    return torch.arange(pointer, pointer + count).expand(3, -1)


def place_positions(pointer: int, places: Tensor, wide: int) -> Tensor:
    """(3, n) int64: positions of raster places (n,) in a video block whose grid is `wide` tokens wide."""
    places = places.long()
    return torch.stack([torch.full_like(places, pointer), pointer + places // wide, pointer + places % wide])
