"""Three-axis rotary position embedding of the TTT layer: channel pairs rotate with time, row and column."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

THETA = 10_000.0


@lru_cache(maxsize=16)
def _axes_and_frequencies(head_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the axis and the frequency of each channel pair: 10000^(-2i/d) on an axis of width d."""
    planar = 3 * (head_dim // 8)
    widths = (head_dim // 4, planar, planar)
    axes = torch.cat([torch.full((width // 2,), axis) for axis, width in enumerate(widths)])
    exponents = torch.cat([torch.arange(0, width, 2, dtype=torch.float64) / width for width in widths])
    return axes.to(device), (THETA**-exponents).to(device)


def rotary_angles(positions: Tensor, head_dim: int) -> Tensor:
    """Rotation of each channel pair for each token, as complex numbers of modulus one.

    A quarter of the channels follow t; y and x get three eighths each. Angles are computed in float64, because in
    float32 t * f is off by 1e-3 rad after some hours.

    Args:
        positions: (..., L, 3) integer (t, y, x).
        head_dim: channels per head, a multiple of 16.

    Returns:
        (..., L, head_dim / 2) complex64.
    """
    axes, frequencies = _axes_and_frequencies(head_dim, positions.device)
    angle = positions.index_select(-1, axes) * frequencies
    return torch.complex(angle.cos().float(), angle.sin().float())


def rotate(vectors: Tensor, rotation: Tensor) -> Tensor:
    """Rotate adjacent channel pairs (2j, 2j+1). Computes in float32 whatever the dtype, then casts back.

    Args:
        vectors: (..., D) real.
        rotation: complex64, broadcastable to (..., D / 2), see `rotary_angles`.
    """
    pairs = torch.view_as_complex(vectors.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation).flatten(-2).to(vectors.dtype)
