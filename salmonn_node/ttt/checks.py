"""Input checks of the TTT layer. They run before the state changes, and each error names the bad argument."""

from __future__ import annotations

import torch
from torch import Tensor


def with_batch(tokens: Tensor) -> Tensor:
    """Add a batch dimension: (L, hidden) -> (1, L, hidden). (B, L, hidden) is returned as it is."""
    return tokens.unsqueeze(0) if tokens.dim() == 2 else tokens


def checked(
    tokens: Tensor, positions: Tensor, batch: int, hidden: int, dtype: torch.dtype, name: str
) -> tuple[Tensor, Tensor]:
    """Check tokens and positions. Return tokens (B, L, hidden) in the compute dtype and positions (B, L, 3) int64.

    Args:
        tokens: (L, hidden) or (B, L, hidden).
        positions: (L, 3) or (B, L, 3) integers (t, y, x), each >= 0.
        batch: B, the number of streams in the state.
        hidden: channels of a token.
        dtype: dtype of the layer's parameters.
        name: the caller's name for the tokens; errors use it.

    Raises:
        ValueError: an argument is empty, has the wrong shape or dtype, or holds NaN, infinities or negative positions.
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
    # If the sum is finite, every row is finite. Only otherwise check each value: finite values can overflow the sum.
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
