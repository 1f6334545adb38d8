"""Check what callers bring to the TTT layer; an error names the argument, and nothing has changed by then."""

from __future__ import annotations

import torch
from torch import Tensor


def with_batch(tokens: Tensor) -> Tensor:
    """(L, hidden) -> (1, L, hidden); (B, L, hidden) stays."""
    return tokens.unsqueeze(0) if tokens.dim() == 2 else tokens


def checked(
    tokens: Tensor, positions: Tensor, batch: int, hidden: int, dtype: torch.dtype, name: str
) -> tuple[Tensor, Tensor]:
    """Tokens (B, L, hidden) in the compute dtype, and positions (B, L, 3) int64.

    Args:
        tokens: (L, hidden) or (B, L, hidden).
        positions: (L, 3) or (B, L, 3) integers (t, y, x), each >= 0.
        batch: B, streams of the state.
        hidden: channels of a token.
        dtype: of the layer's parameters.
        name: what the caller calls the tokens.

    Raises:
        ValueError: empty, of a wrong shape or type, not finite or negative.
    """
    if tokens.dim() not in (2, 3) or tokens.shape[-1] != hidden:
        raise ValueError(f"{name}: shape {tuple(tokens.shape)}, expected (L, {hidden}) or (B, L, {hidden})")
    rows = with_batch(tokens)
    if rows.shape[0] != batch:
        raise ValueError(f"{name}: {rows.shape[0]} streams, but the state holds {batch}")
    if rows.shape[1] == 0:
        raise ValueError(f"{name}: empty, expected at least one row")
    if not rows.is_floating_point():
        raise ValueError(f"{name}: dtype {tokens.dtype}, expected a floating-point type")
    # A finite sum proves finite rows; only an infinite one needs the closer look.
    if not rows.sum().isfinite() and not rows.isfinite().all():
        raise ValueError(f"{name}: NaN or infinite values")
    if positions.shape not in ((rows.shape[1], 3), (*rows.shape[:2], 3)):
        raise ValueError(f"positions: shape {tuple(positions.shape)}, expected ({rows.shape[1]}, 3)")
    if positions.is_floating_point() or positions.is_complex() or positions.dtype == torch.bool:
        raise ValueError(f"positions: dtype {positions.dtype}, expected int64")
    if int(positions.min()) < 0:
        raise ValueError("positions: negative values")
    places = positions.to(rows.device, torch.int64).expand(*rows.shape[:2], 3)
    return rows.to(dtype), places
