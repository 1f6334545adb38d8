"""Windowed Q-Former of the audio tower: learned queries read 0.5 s of encoder frames (BLIP-2, arXiv:2301.12597).

Post-norm BERT layers: self-attention among the queries, cross-attention to the window in every layer, feed-forward.
There are no word or position embeddings. Parameter names are those of the released checkpoint
(`qformer.bert.encoder.layer.{i}...`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

LAYER_NORM_EPS = 1e-12


class _Projections(nn.Module):
    """Query, key and value projections of one attention. Keys and values may have another input width."""

    def __init__(self, hidden: int, context: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(context, hidden)
        self.value = nn.Linear(context, hidden)


class _Output(nn.Module):
    """Dense, residual, LayerNorm."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=LAYER_NORM_EPS)

    def forward(self, inner: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(residual + self.dense(inner))


class _Attention(nn.Module):
    """Multi-head attention of the queries over a context, with residual and post-norm."""

    def __init__(self, hidden: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.self = _Projections(hidden, context)
        self.output = _Output(hidden, hidden)

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """(B, Q, hidden), (B, S, context) -> (B, Q, hidden)."""
        batch, count, hidden = queries.shape

        def split(x: Tensor) -> Tensor:
            return x.view(batch, -1, self.heads, hidden // self.heads).transpose(1, 2)

        project = self.self
        mixed = functional.scaled_dot_product_attention(
            split(project.query(queries)), split(project.key(context)), split(project.value(context))
        )
        return self.output(mixed.transpose(1, 2).reshape(batch, count, hidden), queries)


class _Intermediate(nn.Module):
    def __init__(self, hidden: int, ffn: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, ffn)

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(self.dense(x))


class _Layer(nn.Module):
    def __init__(self, hidden: int, context: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.attention = _Attention(hidden, hidden, heads)
        self.crossattention = _Attention(hidden, context, heads)
        self.intermediate_query = _Intermediate(hidden, ffn)
        self.output_query = _Output(ffn, hidden)

    def forward(self, queries: Tensor, window: Tensor) -> Tensor:
        queries = self.attention(queries, queries)
        queries = self.crossattention(queries, window)
        return self.output_query(self.intermediate_query(queries), queries)


class _Embeddings(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.LayerNorm = nn.LayerNorm(hidden, eps=LAYER_NORM_EPS)


class _Encoder(nn.Module):
    def __init__(self, hidden: int, layers: int, heads: int, ffn: int, context: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer(hidden, context, heads, ffn) for _ in range(layers))


class _Bert(nn.Module):
    def __init__(self, hidden: int, layers: int, heads: int, ffn: int, context: int) -> None:
        super().__init__()
        self.embeddings = _Embeddings(hidden)
        self.encoder = _Encoder(hidden, layers, heads, ffn, context)


class QFormer(nn.Module):
    """Queries (B, Q, hidden) and windows (B, S, encoder width) -> (B, Q, hidden)."""

    def __init__(self, hidden: int, layers: int, heads: int, ffn: int, encoder_width: int) -> None:
        super().__init__()
        if hidden % heads:
            raise ValueError(f"qformer_hidden={hidden} is not a multiple of qformer_heads={heads}")
        self.bert = _Bert(hidden, layers, heads, ffn, encoder_width)

    def forward(self, queries: Tensor, windows: Tensor) -> Tensor:
        """Read each window with the same queries."""
        states = self.bert.embeddings.LayerNorm(queries)
        for layer in self.bert.encoder.layer:
            states = layer(states, windows)
        return states


def windows_of(frames: Tensor, size: int) -> Tensor:
    """Cut encoder frames (B, S, C) into complete, non-overlapping windows (B * (S // size), size, C)."""
    batch, count, width = frames.shape
    whole = count // size
    return torch.reshape(frames[:, : whole * size], (batch * whole, size, width))
