"""8-bit weights of the language model's decoder layers: half the bytes of bf16, turned back for each product."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

PREFIX = "language.decoder.layers."


class Int8Linear(nn.Module):
    """A linear layer y = s * (x Q^T) + b with a whole-number weight Q and one scale s for each output channel.

    Symmetric and of the weight alone: s = max|row| / 127, Q = round(row / s), so no weight is off by more than s / 2.
    The values -127 to 127 are exact in bf16, so turning Q back costs no accuracy; it costs one temporary matrix.

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
        if weight.dim() != 2:
            raise ValueError(f"weight: shape {tuple(weight.shape)}, expected (out, in)")
        rows = weight.detach().float()
        if not bool(rows.isfinite().all()):
            raise ValueError("weight: NaN or infinite values")
        scale = rows.abs().amax(dim=1) / 127
        # A row of zeros has no scale; any will do.
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        self.register_buffer("weight", torch.round(rows / scale[:, None]).to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out) in the dtype of x."""
        out = (functional.linear(x, self.weight.to(x.dtype)) * self.scale).to(x.dtype)
        return out if self.bias is None else out + self.bias


def quantised(name: str, module: nn.Module) -> bool:
    """Whether the network's module of this name gets 8-bit weights: linear layers of the decoder's layers.

    Embeddings and output head, towers and TTT layer keep their type.
    """
    return name.startswith(PREFIX) and isinstance(module, nn.Linear)


def replace(network: nn.Module, name: str, weight: Tensor) -> None:
    """Put an 8-bit layer in place of a linear one; the old one may be on the meta device."""
    owner, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(owner), leaf, Int8Linear(weight, network.get_submodule(name).bias))


def quantise(network: nn.Module) -> None:
    """Turn a whole network that is in memory already."""
    for name, module in [(n, m) for n, m in network.named_modules() if quantised(n, m)]:
        replace(network, name, module.weight)


def saved_bytes(network: nn.Module, element: int) -> tuple[int, int]:
    """Bytes that 8-bit weights save over `element` bytes a value, and those of the largest matrix turned back."""
    weights = [m.weight for n, m in network.named_modules() if quantised(n, m)]
    saved = sum(w.numel() * (element - 1) - 4 * w.shape[0] for w in weights)
    return saved, max((w.numel() for w in weights), default=0) * element
