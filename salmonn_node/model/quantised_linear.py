"""Quantised linear layers: 8-bit and 4-bit weights for the language model's decoder, expanded for each product.

Both round to the nearest step and need no calibration data. On a CPU, `int4_on_cpu.py` has a faster 4-bit layer for
bf16. We tried torchao and do not use it (bench/RESULTS.md). Its 8-bit layer has the same error and size and is slower
on a CPU. None of its released 4-bit layouts runs on a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

PREFIX = "language.decoder.layers."
# Number of columns of a 4-bit weight that share a scale and a lowest value.
GROUP = 32


class Int8Linear(nn.Module):
    """Linear layer y = s * (x Q^T) + b, with an integer weight Q and one scale s per output channel.

    Quantisation is symmetric: s = max|row| / 127 and Q = round(row / s), so the error of a weight is at most s / 2. The
    values -127 to 127 are exact in bf16, so expanding Q costs no accuracy. It costs one temporary matrix.

    Attributes:
        weight: (out, in) int8.
        scale: (out,) float32, positive.
        bias: (out,) or None.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, bias: nn.Parameter | None = None) -> None:
        """Quantise a (out, in) floating-point weight on the device where it lies.

        Raises:
            ValueError: not two dimensions, or values that are not finite.
        """
        super().__init__()
        rows = checked(weight)
        scale = rows.abs().amax(dim=1) / 127
        # Any scale works for a row of zeros.
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        self.register_buffer("weight", torch.round(rows / scale[:, None]).to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out) in the dtype of x."""
        out = (functional.linear(x, self.weight.to(x.dtype)) * self.scale).to(x.dtype)
        return out if self.bias is None else out + self.bias

    @staticmethod
    def nbytes(out: int, columns: int) -> int:
        """Bytes of a layer without bias."""
        return out * columns + 4 * out


class Int4Linear(nn.Module):
    """Linear layer whose weight has 16 levels per group of 32 columns: w = low + scale * q, with q in 0..15.

    low is the smallest weight of a group, and scale is a fifteenth of its range. So the error of a weight is at most
    scale / 2, apart from the rounding of low and scale to fp16. This takes 5 bits per weight.

    Attributes:
        weight: (out, in / 32, 16) uint8. Byte i of a group holds column i in its low half and i + 16 in its high half.
        scale, low: (out, in / 32, 1) float16.
        bias: (out,) or None.
    """

    weight: Tensor
    scale: Tensor
    low: Tensor

    def __init__(self, weight: Tensor, bias: nn.Parameter | None = None) -> None:
        """Quantise a (out, in) floating-point weight on the device where it lies.

        Raises:
            ValueError: the weight is not 2-D or not finite, or `in` is not a multiple of 32.
        """
        super().__init__()
        rows = checked(weight)
        if rows.shape[1] % GROUP:
            raise ValueError(f"weight: {rows.shape[1]} columns, expected a multiple of {GROUP} for 4-bit weights")
        groups = rows.unflatten(1, (-1, GROUP))
        low = groups.amin(dim=-1, keepdim=True).half()
        scale = ((groups.amax(dim=-1, keepdim=True) - low) / 15).half()
        # Any scale works for a group of equal weights.
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        steps = torch.round((groups - low) / scale.float()).clamp_(0, 15).to(torch.uint8)
        first, second = steps.split(GROUP // 2, dim=-1)
        self.register_buffer("weight", first | (second << 4))
        self.register_buffer("scale", scale)
        self.register_buffer("low", low)
        self.bias = bias

    def full(self, dtype: torch.dtype) -> Tensor:
        """Return the expanded weight, (out, in)."""
        steps = torch.cat([self.weight & 15, self.weight >> 4], dim=-1).to(dtype)
        return steps.mul_(self.scale.to(dtype)).add_(self.low.to(dtype)).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out) in the dtype of x."""
        return functional.linear(x, self.full(x.dtype), self.bias)

    @staticmethod
    def nbytes(out: int, columns: int) -> int:
        """Bytes of a layer without bias."""
        return out * columns // 2 + 4 * out * columns // GROUP


LAYERS: dict[str, type[Int8Linear] | type[Int4Linear]] = {"int8": Int8Linear, "int4": Int4Linear}


def checked(weight: Tensor) -> Tensor:
    """Return a weight in float32.

    Raises:
        ValueError: not two dimensions, or values that are not finite.
    """
    if weight.dim() != 2:
        raise ValueError(f"weight: shape {tuple(weight.shape)}, expected (out, in)")
    rows = weight.detach().float()
    if not bool(rows.isfinite().all()):
        raise ValueError("weight: NaN or infinite values")
    return rows


def quantised(name: str, module: nn.Module) -> bool:
    """Whether the module of this name is quantised. Only linear layers in the decoder's layers are.

    Embeddings, output head, towers and TTT layer keep their type.
    """
    return name.startswith(PREFIX) and isinstance(module, nn.Linear)


def replace(network: nn.Module, name: str, weight: Tensor, weights: str) -> None:
    """Replace a linear layer by a quantised one. The old layer may be on the meta device.

    Args:
        network: changed in place.
        name: name of the linear layer.
        weight: its weight, (out, in).
        weights: "int8" or "int4".
    """
    owner, _, leaf = name.rpartition(".")
    linear = network.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    setattr(network.get_submodule(owner), leaf, _layer(weight, linear.bias, weights))


def _layer(weight: Tensor, bias: nn.Parameter | None, weights: str) -> nn.Module:
    from salmonn_node.model.int4_on_cpu import CpuInt4Linear, usable

    if weights == "int4" and usable(weight):
        return CpuInt4Linear(weight, bias)
    return LAYERS[weights](weight, bias)


def quantise(network: nn.Module, weights: str) -> None:
    """Quantise a whole network that is already in memory."""
    for name, module in [(n, m) for n, m in network.named_modules() if quantised(n, m)]:
        replace(network, name, module.weight, weights)


def saved_bytes(network: nn.Module, weights: str, element: int) -> tuple[int, int]:
    """Bytes saved by "int8" or "int4" against `element` bytes a value, and bytes of the largest expanded matrix."""
    shapes = [m.weight.shape for n, m in network.named_modules() if quantised(n, m)]
    saved = sum(out * columns * element - LAYERS[weights].nbytes(out, columns) for out, columns in shapes)
    return saved, max((out * columns for out, columns in shapes), default=0) * element
