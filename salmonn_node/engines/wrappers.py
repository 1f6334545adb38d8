"""Static wrappers: encoders at one fixed shape. Values that depend only on the grid are constants in the graph."""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn
from transformers import vision_utils

from salmonn_node.engines.flavours import Flavour
from salmonn_node.engines.spec import DTYPES, EngineSpec, TensorSpec, dtype_name

if TYPE_CHECKING:
    from salmonn_node.model.towers import AudioTower, VisionTower

Module = TypeVar("Module", bound=nn.Module)


class StaticVision(nn.Module):
    """A `VisionTower` for `batch` temporal patches of one grid (rows, columns) of patches before merging.

    Input: pixels (batch, rows * columns, channels * 2 * patch * patch), rows in merge order.
    Output: tokens (batch, N, D) and deepstack rows (K, batch, N, D), with N = rows * columns / merge**2. They equal the
    tower's outputs, bit for bit.

    The network computes positions, interpolation weights and segment lengths from its grid, with data-dependent code
    that cannot be exported. transformers allows the caller to precompute these inputs (`transformers.vision_utils`).
    This wrapper does so.
    """

    position_ids: Tensor
    interp_indices: Tensor
    interp_weights: Tensor

    def __init__(self, tower: VisionTower, grid: tuple[int, int], batch: int = 1):
        super().__init__()
        visual = tower.visual
        merge, levels = visual.config.spatial_merge_size, len(visual.config.deepstack_visual_indexes)
        rows, columns = grid
        if rows < 1 or columns < 1 or rows % merge or columns % merge:
            raise ValueError(f"grid: {grid} must be positive multiples of the spatial merge size {merge}")
        if batch < 1:
            raise ValueError(f"batch: {batch} must be 1 or more")
        if not levels:
            raise ValueError("tower: a vision tower without deepstack levels is not supported")
        self.tower, self.grid, self.batch = tower, (rows, columns), batch
        device = next(tower.parameters()).device
        grid_thw = torch.tensor([[1, rows, columns]] * batch)
        taps, weights = vision_utils.get_vision_interpolation_indices_and_weights(
            grid_thw,
            num_grid_per_side=visual.num_grid_per_side,
            mode=visual.interpolation_mode,
            align_corners=visual.interpolation_align_corners,
            spatial_merge_size=merge,
        )
        positions = vision_utils.get_vision_position_ids(grid_thw, merge)
        self.register_buffer("interp_indices", taps.to(device), persistent=False)
        self.register_buffer("interp_weights", weights.to(device), persistent=False)
        self.register_buffer("position_ids", positions.to(device), persistent=False)
        # Plain tensors on the CPU, not buffers. The network reads the segment lengths as Python numbers. On a GPU that
        # would synchronise in every layer and prevent a CUDA graph.
        self.grid_thw, self.cu_seqlens = grid_thw, vision_utils.get_vision_cu_seqlens(grid_thw)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels -> (tokens, deepstack rows)."""
        out = self.tower.visual(
            pixels.flatten(0, 1),
            grid_thw=self.grid_thw,
            position_ids=self.position_ids,
            cu_seqlens=self.cu_seqlens,
            interp_indices=self.interp_indices,
            interp_weights=self.interp_weights,
        )
        tokens = out.pooler_output.unflatten(0, (self.batch, -1))
        return tokens, torch.stack([rows.unflatten(0, (self.batch, -1)) for rows in out.deepstack_features])

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of pixels, tokens and deepstack."""
        config = self.tower.visual.config
        patches = self.grid[0] * self.grid[1]
        tokens = (self.batch, patches // config.spatial_merge_size**2, config.out_hidden_size)
        return {
            "pixels": (self.batch, patches, config.in_channels * config.temporal_patch_size * config.patch_size**2),
            "tokens": tokens,
            "deepstack": (len(config.deepstack_visual_indexes), *tokens),
        }


class StaticAudio(nn.Module):
    """An `AudioTower` (Whisper encoder, windowed Q-Former, projection) for `batch` whole windows.

    Input: log-mel (batch, mel bins, frames). Output: tokens (batch, tokens per window, D).
    """

    def __init__(self, tower: AudioTower, batch: int = 1):
        super().__init__()
        if batch < 1:
            raise ValueError(f"batch: {batch} must be 1 or more")
        self.tower, self.batch, self.grid = tower, batch, (100 * tower.config.window_s,)

    def forward(self, mel: Tensor) -> tuple[Tensor]:
        """Log-mel -> (tokens,)."""
        return (self.tower(mel),)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of mel and tokens."""
        config = self.tower.config
        return {
            "mel": (self.batch, config.mel_bins, *self.grid),
            "tokens": (self.batch, config.window_tokens, self.tower.audio_proj.out_features),
        }


StaticEncoder = StaticVision | StaticAudio


def cast_copy(module: Module, dtype: torch.dtype) -> Module:
    """Copy a module in evaluation mode with its parameters cast to `dtype`.

    Buffers keep their dtype, because rounding rotary frequencies to bf16 would change every position.
    """
    same = copy.deepcopy(module).eval().requires_grad_(False)
    for parameter in same.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    return same


def spec_of(static: StaticEncoder, model: str, flavour: Flavour = "tensorrt") -> EngineSpec:
    """Describe a static wrapper: encoder, grid, dtype, and names and shapes of inputs and outputs."""
    dtype = dtype_name(next(p.dtype for p in static.parameters() if p.is_floating_point()))
    tensors = [TensorSpec(name, shape, dtype) for name, shape in static.shapes().items()]
    return EngineSpec(
        model=model,
        encoder="vision" if isinstance(static, StaticVision) else "audio",
        grid=static.grid,
        dtype=dtype,
        inputs=(tensors[0],),
        outputs=tuple(tensors[1:]),
        batch=static.batch,
        flavour=flavour,
    )


def weights_sha256(tower: nn.Module, dtype: str) -> str:
    """sha256 of a tower's weights in the dtype of a plan: names, shapes and bytes, in name order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tower.state_dict().items()):
        tensor = tensor.detach().to("cpu")
        if tensor.is_floating_point():
            tensor = tensor.to(DTYPES[dtype])
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
