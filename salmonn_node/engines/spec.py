"""Which encoder a plan computes: its fixed shapes, its dtype and the TensorRT flavour it is built for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import torch

from salmonn_node.engines.flavours import DTYPE_NAMES, FLAVOURS, Flavour

# Raised by hand when a wrapper (`engines/wrappers.py`) computes something else or in another order. Plans of an earlier
# revision are then refused.
WRAPPER_REVISION = 1

DTYPES: dict[str, torch.dtype] = dict(zip(DTYPE_NAMES, (torch.bfloat16, torch.float16, torch.float32), strict=True))


def folder_name(name: str) -> str:
    """A network's name as a folder of plans: what is not a letter, digit, '.', '_' or '-' becomes '_'."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip("._-")[:64] or "unnamed"


def dtype_name(dtype: torch.dtype) -> str:
    """`bf16`, `fp16` or `fp32`; raises ValueError for another dtype."""
    for name, known in DTYPES.items():
        if known == dtype:
            return name
    raise ValueError(f"dtype: {dtype} is none of {', '.join(DTYPES)}")


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a plan: its name, fixed shape and dtype name."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def empty(self, device: torch.device | str, fill: float | None = None) -> torch.Tensor:
        """Give a tensor of this shape on `device`; filled with `fill` when one is named."""
        if fill is None:
            return torch.empty(self.shape, dtype=DTYPES[self.dtype], device=device)
        return torch.full(self.shape, fill, dtype=DTYPES[self.dtype], device=device)

    def as_list(self) -> list:
        """`[name, shape, dtype]`, as manifests hold it."""
        return [self.name, list(self.shape), self.dtype]


@dataclass(frozen=True)
class EngineSpec:
    """One encoder at one fixed shape.

    `grid` is (rows, columns) of 16x16 patches for `vision`, and (mel frames,) of one window for `audio`. `batch` counts
    temporal patches or windows. `inputs` and `outputs` follow from the wrapped module (`wrappers.spec_of`), so that
    they cannot disagree.
    """

    model: str
    encoder: Literal["vision", "audio"]
    grid: tuple[int, ...]
    dtype: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch: int = 1
    flavour: Flavour = "tensorrt"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", self.model):
            raise ValueError(f"model: {self.model!r} must be letters, digits, '.', '_' and '-': it names a folder")
        if self.encoder not in ("vision", "audio"):
            raise ValueError(f"encoder: {self.encoder!r} is neither 'vision' nor 'audio'")
        if len(self.grid) != (2 if self.encoder == "vision" else 1) or min(self.grid) < 1:
            raise ValueError(f"grid: {self.grid} is not (rows, columns) for vision or (mel frames,) for audio")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype: {self.dtype!r} is none of {', '.join(DTYPES)}")
        if self.flavour not in FLAVOURS:
            raise ValueError(f"flavour: {self.flavour!r} is none of {', '.join(FLAVOURS)}")
        if self.batch < 1:
            raise ValueError(f"batch: {self.batch} must be 1 or more")

    @property
    def label(self) -> str:
        """The shape in a folder's name: `vision18x34`, `audio3000`, with `x<batch>` behind when it is not 1."""
        shape = "x".join(str(n) for n in self.grid)
        return f"{self.encoder}{shape}" + (f"-b{self.batch}" if self.batch != 1 else "")
