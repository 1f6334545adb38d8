"""Language model: transformers' Qwen3-VL text model, with our embeddings, deepstack rows, positions and cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel

from salmonn_node.model.config import SalmonnConfig
from salmonn_node.model.kv_cache import KVCache, causal_mask

ATTENTION = "salmonn"
# Extra cache rows beyond the prompt, for options and answer.
ANSWER_ROWS = 256


@dataclass
class AttentionRecord:
    """Attention of the last query row of a pass: (heads, cached + new) float32 per layer."""

    layers: list[Tensor] = field(default_factory=list)

    def add(self, query: Tensor, key: Tensor, scaling: float) -> None:
        """Add one layer: query (1, H, L, d), key (1, KV, S, d)."""
        heads, kv_heads = query.shape[1], key.shape[1]
        last = query[0, :, -1].reshape(kv_heads, heads // kv_heads, -1).float()
        weights = torch.softmax(last @ key[0].float().transpose(1, 2) * scaling, dim=-1)
        self.layers.append(weights.flatten(0, 1))

    def mean(self, rows: Sequence[Tensor], length: int) -> Tensor:
        """(length,): average over layers and heads. Row i of layer l counts as row `rows[l][i]`.

        Raises:
            ValueError: nothing was recorded.
        """
        if not self.layers:
            raise ValueError("nothing was recorded")
        total = self.layers[0].new_zeros(length)
        for weights, index in zip(self.layers, rows, strict=True):
            total.index_add_(0, index.to(total.device), weights[:, : len(index)].mean(0))
        return total / len(self.layers)

    def by_head(self, rows: Sequence[Tensor], length: int) -> Tensor:
        """(layers, heads, length): as `mean`, not averaged.

        Raises:
            ValueError: nothing was recorded.
        """
        if not self.layers:
            raise ValueError("nothing was recorded")
        total = self.layers[0].new_zeros(len(self.layers), len(self.layers[0]), length)
        for into, weights, index in zip(total, self.layers, rows, strict=True):
            into.index_add_(1, index.to(total.device), weights[:, : len(index)])
        return total


@dataclass
class Captured:
    """Inputs of the reader's scores, one entry per layer.

    Attributes:
        queries: (1, H, L, d), after the norm and before rotation.
        keys: (1, KV, L, d), likewise.
        hidden: (L, D), after the input norm.
        rotated: queries (1, H, L, d) after rotation.
    """

    queries: list[Tensor] = field(default_factory=list)
    keys: list[Tensor] = field(default_factory=list)
    hidden: list[Tensor] = field(default_factory=list)
    rotated: list[Tensor] = field(default_factory=list)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    record: AttentionRecord | None = None,
    captured: Captured | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention. Without a mask it is causal over equal lengths."""
    if record is not None:
        record.add(query, key, scaling)
    if captured is not None:
        captured.rotated.append(query)
    grouped = query.shape[1] != key.shape[1]
    causal = attention_mask is None and query.shape[2] == key.shape[2] and query.shape[2] > 1
    out = functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=attention_mask,
        is_causal=causal,
        scale=scaling,
        dropout_p=dropout,
        enable_gqa=grouped,
    )
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, _attention)


@dataclass
class PromptTokens:
    """A run of prompt tokens for the language model.

    Attributes:
        embeddings: (L, D).
        positions: (3, L) int64, M-RoPE time, row, column.
        visual: (L,) bool, whether a row gets deepstack features.
        deepstack: (K, V, D) for the V visual rows in order, or None.
    """

    embeddings: Tensor
    positions: Tensor
    visual: Tensor
    deepstack: Tensor | None = None

    def __len__(self) -> int:
        return self.embeddings.shape[0]

    def slice(self, start: int, stop: int) -> PromptTokens:
        """Return rows `start` to `stop`."""
        deepstack = None
        if self.deepstack is not None:
            before = int(self.visual[:start].sum())
            deepstack = self.deepstack[:, before : before + int(self.visual[start:stop].sum())]
        return PromptTokens(
            self.embeddings[start:stop], self.positions[:, start:stop], self.visual[start:stop], deepstack
        )

    def select(self, rows: Tensor) -> PromptTokens:
        """Return these rows, ascending."""
        deepstack = None
        if self.deepstack is not None:
            order = torch.cumsum(self.visual, 0) - 1
            deepstack = self.deepstack[:, order[rows][self.visual[rows]]]
        return PromptTokens(self.embeddings[rows], self.positions[:, rows], self.visual[rows], deepstack)

    @staticmethod
    def cat(first: PromptTokens, second: PromptTokens) -> PromptTokens:
        """Concatenate two runs."""
        parts = [t.deepstack for t in (first, second) if t.deepstack is not None]
        return PromptTokens(
            torch.cat([first.embeddings, second.embeddings]),
            torch.cat([first.positions, second.positions], dim=1),
            torch.cat([first.visual, second.visual]),
            torch.cat(parts, dim=1) if parts else None,
        )


class LanguageModel(nn.Module):
    """Decoder and output head. The batch size is always one."""

    def __init__(self, config: SalmonnConfig) -> None:
        super().__init__()
        text = Qwen3VLTextConfig(**config.text)
        self.decoder = Qwen3VLTextModel._from_config(text, attn_implementation=ATTENTION)
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        if config.tied_embeddings:
            self.lm_head.weight = self.decoder.embed_tokens.weight
        self.chunk = config.prefill_chunk
        self._captured: Captured | None = None

    @property
    def layers(self) -> int:
        """Number of decoder layers."""
        return len(self.decoder.layers)

    def embed(self, ids: Tensor) -> Tensor:
        """Embed ids: (L,) int64 -> (L, D)."""
        return self.decoder.embed_tokens(ids)

    def logits(self, hidden: Tensor) -> Tensor:
        """Map normed hidden states (..., D) to logits (..., vocabulary) float32."""
        return self.lm_head(hidden).float()

    def forward(
        self,
        tokens: PromptTokens,
        cache: KVCache | None = None,
        record: AttentionRecord | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Read tokens after those in the cache, and append them to it. Return normed hidden states (L, D)."""
        cached = len(cache) if cache is not None else 0
        if mask is None and cached and len(tokens) > 1:
            mask = causal_mask(cached, len(tokens), tokens.embeddings.device)
        deepstack = None
        if tokens.deepstack is not None and bool(tokens.visual.any()):
            deepstack = list(tokens.deepstack)
        out = self.decoder(
            inputs_embeds=tokens.embeddings[None],
            attention_mask=mask,
            position_ids=tokens.positions[:, None],
            past_key_values=cache,
            use_cache=False,
            visual_pos_masks=tokens.visual[None] if deepstack else None,
            deepstack_visual_embeds=deepstack,
            record=record,
            captured=self._captured,
        )
        return out.last_hidden_state[0]

    def prefill(self, tokens: PromptTokens, cache: KVCache, record_last: AttentionRecord | None = None) -> Tensor:
        """Read many tokens in chunks and return hidden states (L, D). Causal attention gives the result of one pass.

        With `record_last`, record the attention of the last row.
        """
        hidden = []
        cache.reserve(len(cache) + len(tokens) + ANSWER_ROWS)
        for start in range(0, len(tokens), self.chunk):
            stop = min(start + self.chunk, len(tokens))
            record = record_last if stop == len(tokens) else None
            hidden.append(self(tokens.slice(start, stop), cache, record))
        return torch.cat(hidden) if hidden else tokens.embeddings

    @contextmanager
    def capture(self) -> Iterator[Captured]:
        """Context manager: while it is open, each pass records the inputs of the reader's scores."""
        captured = self._captured = Captured()
        handles = []
        for layer in self.decoder.layers:
            handles += [
                layer.self_attn.q_norm.register_forward_hook(lambda *a: captured.queries.append(a[2].transpose(1, 2))),
                layer.self_attn.k_norm.register_forward_hook(lambda *a: captured.keys.append(a[2].transpose(1, 2))),
                layer.input_layernorm.register_forward_hook(lambda *a: captured.hidden.append(a[2][0])),
            ]
        try:
            yield captured
        finally:
            self._captured = None
            for handle in handles:
                handle.remove()
