"""States of a short text without any memory: the decoder's layers one after another, and nothing else.

It computes what `decoder(inputs_embeds=...)` computes, bit for bit, in about a third of the time: for a dozen tokens
most of that call is bookkeeping (masks, caches, output capturing), not arithmetic.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel, apply_rotary_pos_emb


@torch.no_grad()
def text_states(decoder: Qwen3VLTextModel, rows: Tensor) -> Tensor:
    """Map embeddings (B, L, D) at positions 0 to L - 1 to the normed last states (B, L, D); attention is causal."""
    where = torch.arange(rows.shape[1], device=rows.device).expand(3, len(rows), -1)
    cos, sin = decoder.rotary_emb(rows, where)
    hidden = rows
    for layer in decoder.layers:
        hidden = _layer(layer, hidden, cos, sin)
    return _norm(decoder.norm, hidden)


def _layer(layer: Any, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    hidden = hidden + _attended(layer.self_attn, _norm(layer.input_layernorm, hidden), cos, sin)
    x, mlp = _norm(layer.post_attention_layernorm, hidden), layer.mlp
    return hidden + _linear(mlp.down_proj, mlp.act_fn(_linear(mlp.gate_proj, x)) * _linear(mlp.up_proj, x))


def _attended(attention: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    heads = (*x.shape[:-1], -1, attention.head_dim)
    query = _norm(attention.q_norm, _linear(attention.q_proj, x).view(heads)).transpose(1, 2)
    key = _norm(attention.k_norm, _linear(attention.k_proj, x).view(heads)).transpose(1, 2)
    value = _linear(attention.v_proj, x).view(heads).transpose(1, 2)
    query, key = apply_rotary_pos_emb(query, key, cos, sin)
    out = functional.scaled_dot_product_attention(
        query,
        key,
        value,
        is_causal=x.shape[1] > 1,
        scale=attention.scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return _linear(attention.o_proj, out.transpose(1, 2).reshape(*x.shape[:-1], -1))


def _linear(layer: Any, x: Tensor) -> Tensor:
    """A layer's output; a plain one without the detour through `__call__`."""
    return functional.linear(x, layer.weight, layer.bias) if type(layer) is nn.Linear else layer(x)


def _norm(layer: Any, x: Tensor) -> Tensor:
    """A norm's output. In float32 torch's own is the same to the bit; in half precision it rounds elsewhere."""
    if x.dtype != torch.float32:
        return layer(x)
    return functional.rms_norm(x, layer.weight.shape, layer.weight, layer.variance_epsilon)
