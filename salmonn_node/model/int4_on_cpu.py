"""4-bit linear layer for bf16 on a CPU: torch's own operator multiplies few rows without expanding the weight.

A generated token is one row, and expanding a matrix for one row takes a hundred times as long as multiplying it
(bench/RESULTS.md). For many rows, such as a prompt, expanding is faster, so this layer does both. torch documents
neither the operator nor the layout of its packed weight. So `usable` compares the layout with ours first, and where it
differs, `quantised_linear.Int4Linear` is used.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional

from salmonn_node.model.quantised_linear import GROUP, checked

# Rows of the weight that are packed together on this kind of CPU.
BLOCK = 64
# Up to so many rows of input, the operator is faster than expanding the weight.
FEW = 128


class CpuInt4Linear(nn.Module):
    """Linear layer whose weight has 16 levels per group of 32 columns: w = zero + scale * (q - 8), with q in 0..15.

    It has the bytes of `Int4Linear`. The error of a weight is at most scale / 2, apart from the rounding of scale and
    zero to bf16.

    Attributes:
        packed: (out, in / 2) uint8, in the layout of torch's operator.
        scale_and_zero: (in / 32, out, 2) bf16.
        bias: (out,) or None.
    """

    packed: Tensor
    scale_and_zero: Tensor

    def __init__(self, weight: Tensor, bias: nn.Parameter | None = None) -> None:
        """Quantise a (out, in) bf16 weight on a CPU, for which `usable` is true.

        Raises:
            ValueError: the weight is not 2-D or not finite.
        """
        super().__init__()
        groups = checked(weight).unflatten(1, (-1, GROUP))
        low, high = groups.amin(dim=-1), groups.amax(dim=-1)
        scale = ((high - low) / 15).bfloat16().float()
        # Any scale works for a group of equal weights.
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        zero = (low + 8 * scale).bfloat16().float()
        steps = torch.round((groups - zero[..., None]) / scale[..., None]).add_(8).clamp_(0, 15).to(torch.int32)
        self.register_buffer("packed", _pack(steps.flatten(1)))
        pairs = torch.stack([scale, zero], dim=-1).bfloat16()
        self.register_buffer("scale_and_zero", pairs.transpose(0, 1).contiguous())
        self.bias = bias

    def full(self) -> Tensor:
        """Return the expanded weight, (out, in) bf16."""
        groups, out = self.scale_and_zero.shape[:2]
        steps = _unpacked(self.packed).to(torch.bfloat16).view(-1, groups, GROUP, BLOCK)
        pairs = self.scale_and_zero.view(groups, -1, 1, BLOCK, 2).transpose(0, 1)
        scale, zero = pairs[..., 0], pairs[..., 1]
        return torch.addcmul(zero - 8 * scale, steps, scale).flatten(1, 2).transpose(1, 2).reshape(out, -1)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out) in the dtype of x."""
        rows = x.flatten(0, -2).to(torch.bfloat16)
        if len(rows) > FEW:
            out = functional.linear(rows, self.full())
        else:
            out = torch.ops.aten._weight_int4pack_mm_for_cpu(rows.contiguous(), self.packed, GROUP, self.scale_and_zero)
        out = out.unflatten(0, x.shape[:-1]).to(x.dtype)
        return out if self.bias is None else out + self.bias


def usable(weight: Tensor) -> bool:
    """Whether `CpuInt4Linear` can hold this weight on this machine."""
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16 or weight.dim() != 2:
        return False
    out, columns = weight.shape
    return out % BLOCK == 0 and columns % GROUP == 0 and _layout_is_ours()


@functools.cache
def _layout_is_ours() -> bool:
    """Whether torch packs a weight as `_unpacked` reads it. It depends on the CPU and on torch's version."""
    steps = torch.randint(0, 16, (2 * BLOCK, 2 * GROUP), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    try:
        back = _unpacked(_pack(steps))
    except (AttributeError, RuntimeError):
        return False
    return bool((back.transpose(1, 2).reshape(steps.shape) == steps).all())


def _pack(steps: Tensor) -> Tensor:
    """(out, in) int32 in 0..15 -> (out, in / 2) uint8."""
    packed: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(steps, 1)
    return packed


def _unpacked(packed: Tensor) -> Tensor:
    """(out, in / 2) uint8 -> (out / BLOCK, in, BLOCK) uint8. Low halves hold the first half of a block's rows."""
    blocks = packed.view(len(packed) // BLOCK, -1, BLOCK // 2)
    return torch.cat([blocks & 15, blocks >> 4], dim=-1)
