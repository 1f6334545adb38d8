"""Build request for one plan: tower, shape, dtype, flavour, and the inputs of its parity check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from salmonn_node.engines import parity
from salmonn_node.engines.flavours import Flavour
from salmonn_node.engines.spec import DTYPES
from salmonn_node.engines.wrappers import StaticAudio, StaticEncoder, StaticVision, cast_copy
from salmonn_node.model.towers import AudioTower, VisionTower

FrontEnd = Literal["onnx", "torch_tensorrt"]


@dataclass
class Request:
    """One plan to build.

    Attributes:
        tower: VisionTower or AudioTower of any dtype. It is not changed.
        model: name of the network.
        grid: (rows, columns) for vision, None for audio.
        dtype, flavour, front_end: see EngineSpec and `front_ends`.
        real: frames or clips (name, tensor of the input's shape) for the parity check, besides noise.
        seeds: number of noise inputs for the parity check. 0 skips the check of the graph; the record says so.
        workspace_mib: limit of the builder's GPU scratch memory. 0 keeps TensorRT's default.
        force: build even if the entry exists.
    """

    tower: VisionTower | AudioTower
    model: str
    grid: tuple[int, int] | None
    dtype: str = "bf16"
    flavour: Flavour = "tensorrt"
    front_end: FrontEnd = "onnx"
    batch: int = 1
    real: Sequence[tuple[str, Tensor]] = ()
    seeds: int = parity.SEEDS
    workspace_mib: int = 0
    force: bool = False

    def static(self, dtype: str) -> StaticEncoder:
        """Make the static wrapper around a copy of the tower in a dtype."""
        return self.around(cast_copy(self.tower, DTYPES[dtype]))

    def around(self, tower: VisionTower | AudioTower) -> StaticEncoder:
        """Make the static wrapper around a tower, with this request's grid and batch."""
        if isinstance(tower, AudioTower):
            return StaticAudio(tower, self.batch)
        assert self.grid is not None, "a vision tower needs a grid"
        return StaticVision(tower, self.grid, self.batch)
