"""The names of TensorRT's flavours and of a plan's number types; no torch, so that `--help` can list them."""

from __future__ import annotations

from typing import Literal

Flavour = Literal["tensorrt", "tensorrt_rtx"]
FLAVOURS: tuple[Flavour, ...] = ("tensorrt", "tensorrt_rtx")
DTYPE_NAMES = ("bf16", "fp16", "fp32")
