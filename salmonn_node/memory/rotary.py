"""Three-axis rotary positions of the TTT layer: adjacent channel pairs turn with time, row and column."""

from __future__ import annotations

import torch
from torch import Tensor

THETA = 10_000.0


def rotary_angles(positions: Tensor, head_dim: int) -> Tensor:
    """Rotation of each channel pair for each token, as complex numbers of modulus one.

    A quarter of the channels follows t; y and x get three eighths each. Frequencies of an axis of width d are
    10000^(-2i/d). Angles are formed in float64, because t * f at float32 is off by 1e-3 rad after some hours.

    Args:
        positions: (..., L, 3) integer (t, y, x).
        head_dim: channels per head, a multiple of 16.

    Returns:
        (..., L, head_dim / 2) complex64.
    """
    planar = 3 * (head_dim // 8)
    angles = []
    for axis, width in enumerate((head_dim // 4, planar, planar)):
        exponent = torch.arange(0, width, 2, dtype=torch.float64, device=positions.device) / width
        angles.append(positions[..., axis, None].to(torch.float64) * THETA**-exponent)
    angle = torch.cat(angles, dim=-1)
    return torch.complex(torch.cos(angle).float(), torch.sin(angle).float())


def rotate(vectors: Tensor, rotation: Tensor) -> Tensor:
    """Turn adjacent channel pairs (2j, 2j+1), in float32 whatever the dtype, and cast back.

    Args:
        vectors: (..., D) real.
        rotation: complex64, broadcastable to (..., D / 2).
    """
    pairs = torch.view_as_complex(vectors.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation).flatten(-2).to(vectors.dtype)
