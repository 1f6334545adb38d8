"""Batched vision tower: encode many temporal patches of one grid at once, with the same results."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from transformers.models.qwen3_vl import modeling_qwen3_vl as qwen

from salmonn_node.model.towers import VisionTower


def encode_patches(tower: VisionTower, pixels: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Compute the same as `VisionTower.forward`, several times faster for small frames, with gradients.

    Args:
        tower: the vision tower.
        pixels: (B, h * w, channels * 2 * patch * patch), rows in merge order.
        grid: (h, w) in patches, before merging.

    Returns:
        Tokens (B, T, D), and deepstack rows (K, B, T, D).
    """
    model = tower.visual
    batch, length = pixels.shape[:2]
    thw = torch.tensor([[1, *grid]], device=pixels.device)
    rows, weights = qwen.get_vision_interpolation_indices_and_weights(
        thw,
        num_grid_per_side=model.num_grid_per_side,
        mode=model.interpolation_mode,
        align_corners=model.interpolation_align_corners,
        spatial_merge_size=model.config.spatial_merge_size,
        kwargs={},
    )
    places = qwen.get_vision_position_ids(thw, model.spatial_merge_size, kwargs={})
    hidden = model.patch_embed(pixels.flatten(0, 1)).unflatten(0, (batch, length))
    hidden = hidden + (model.pos_embed(rows) * weights[:, :, None]).sum(1)
    cos, sin = model.rotary_pos_emb(hidden[0], places)
    deepstack = []
    for number, block in enumerate(model.blocks):
        attention = block.attn
        mixed = attention.qkv(block.norm1(hidden)).unflatten(-1, (3, attention.num_heads, -1))
        query, key, value = mixed.flatten(0, 1).unbind(1)  # (B * S, heads, d)
        query, key = qwen.apply_rotary_pos_emb_vision(query, key, cos.repeat(batch, 1), sin.repeat(batch, 1))
        query, key, value = (x.unflatten(0, (batch, length)).transpose(1, 2) for x in (query, key, value))
        out = functional.scaled_dot_product_attention(query, key, value, scale=attention.scaling)
        hidden = hidden + attention.proj(out.transpose(1, 2).flatten(2))
        hidden = hidden + block.mlp(block.norm2(hidden))
        if number in model.deepstack_visual_indexes:
            merger = model.deepstack_merger_list[model.deepstack_visual_indexes.index(number)]
            deepstack.append(merger(hidden.flatten(0, 1)).unflatten(0, (batch, -1)))
    tokens = model.merger(hidden.flatten(0, 1)).unflatten(0, (batch, -1))
    return tokens, torch.stack(deepstack) if deepstack else tokens.new_zeros((0, *tokens.shape))
