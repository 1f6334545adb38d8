"""Engine specification: encoder, fixed shapes, dtype and TensorRT flavour of a plan."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import torch

from salmonn_node.engines.flavours import DTYPE_NAMES, FLAVOURS, Flavour

# Increase this by hand when a wrapper (`engines/wrappers.py`) changes its computation or the order of operations. Plans
# of an earlier revision are then refused.
WRAPPER_REVISION = 1

DTYPES: dict[str, torch.dtype] = dict(zip(DTYPE_NAMES, (torch.bfloat16, torch.float16, torch.float32), strict=True))


def folder_name(name: str) -> str:
    """Folder name for a network's plans: characters other than letters, digits, '.', '_' and '-' become '_'."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip("._-")[:64] or "unnamed"


def dtype_name(dtype: torch.dtype) -> str:
    """Return `bf16`, `fp16` or `fp32`. Raises ValueError for another dtype."""
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
        """Allocate a tensor of this shape on `device`, filled with `fill` if given."""
        if fill is None:
            return torch.empty(self.shape, dtype=DTYPES[self.dtype], device=device)
        return torch.full(self.shape, fill, dtype=DTYPES[self.dtype], device=device)

    def as_list(self) -> list:
        """Return `[name, shape, dtype]`, as in a manifest."""
        return [self.name, list(self.shape), self.dtype]


@dataclass(frozen=True)
class EngineSpec:
    """One encoder at one fixed shape.

    `grid` is (rows, columns) of 16x16 patches for `vision`, and (mel frames,) of one window for `audio`. `batch` counts
    temporal patches or windows. `wrappers.spec_of` derives `inputs` and `outputs` from the wrapped module, so they
    always match it.
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
        """Shape for the folder name: `vision18x34` or `audio3000`, followed by `x<batch>` if batch is not 1."""
        shape = "x".join(str(n) for n in self.grid)
        return f"{self.encoder}{shape}" + (f"-b{self.batch}" if self.batch != 1 else "")
