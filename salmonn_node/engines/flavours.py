"""Names of TensorRT flavours and of plan dtypes. No torch import, so that `--help` can list them quickly."""

from __future__ import annotations

from typing import Literal

Flavour = Literal["tensorrt", "tensorrt_rtx"]
FLAVOURS: tuple[Flavour, ...] = ("tensorrt", "tensorrt_rtx")
DTYPE_NAMES = ("bf16", "fp16", "fp32")
