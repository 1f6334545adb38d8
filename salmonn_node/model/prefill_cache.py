"""Prefill cache: keys, values and hidden states of a memory's prompt rows, computed before any question."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from salmonn_node.model.kv_cache import KVCache

Key = tuple[int, ...]


class PrefillCache:
    """Computed rows of one memory's prompt. Saved with the memory as its part `prefill`.

    Attributes:
        cache: keys and values, one row per entry of `keys`.
        keys: identity of each row, see `cached_prefill.row_keys`.
        hidden: (n, D), normed hidden states of the rows, None before the first row.
        computed: rows computed so far.
        invalidated: rows computed again because their features or positions changed.
    """

    def __init__(self, layers: int) -> None:
        self.cache = KVCache(layers)
        self.keys: list[Key] = []
        self.hidden: Tensor | None = None
        self.computed = 0
        self.invalidated = 0

    def append(self, keys: list[Key], hidden: Tensor) -> None:
        """Record keys and hidden states (n, D) of the rows that the language model has just added to `cache`."""
        self.hidden = hidden if self.hidden is None else torch.cat([self.hidden, hidden])
        self.keys += keys
        self.computed += len(keys)

    def keep(self, wanted: list[Key]) -> None:
        """Drop rows that are not `wanted`. Count those that are wanted at another position or in another version."""
        kept = set(wanted)
        rows = [i for i, key in enumerate(self.keys) if key in kept]
        if len(rows) == len(self.keys):
            return
        names = {key[:2] for key in wanted}
        self.invalidated += sum(key[:2] in names for key in self.keys if key not in kept)
        index = torch.tensor(rows, dtype=torch.int64)
        self.cache.select(index)
        self.keys = [self.keys[i] for i in rows]
        self.hidden = None if self.hidden is None else self.hidden[index]

    def snapshot(self) -> PrefillCache:
        """Return a cache that a question may read while the stream changes this one."""
        other = PrefillCache(self.cache.layers)
        other.cache, other.keys, other.hidden = self.cache.share(), list(self.keys), self.hidden
        return other

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the whole state, bit for bit."""
        tensors = self.cache.to_tensors() if self.keys else {}
        if self.hidden is not None and self.keys:
            tensors["hidden"] = self.hidden.contiguous()
        tensors["rows"] = torch.tensor(self.keys, dtype=torch.int64).reshape(len(self.keys), 6)
        return tensors, {"computed": self.computed, "invalidated": self.invalidated, "layers": self.cache.layers}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], meta: dict[str, Any]) -> PrefillCache:
        """Restore a cache from `to_tensors`."""
        self = cls(int(meta["layers"]))
        self.cache = KVCache.from_tensors(self.cache.layers, tensors)
        self.keys = [tuple(row) for row in tensors["rows"].tolist()]
        self.hidden = tensors.get("hidden")
        self.computed, self.invalidated = int(meta["computed"]), int(meta["invalidated"])
        return self
