"""KV cache of the language model: one growing buffer per layer, whose rows can be selected."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class KVCache:
    """Rotated keys and values of each layer, (1, KV heads, S, head). All layers hold the same number of rows.

    It implements `update`, the part of transformers' cache interface that attention calls.
    """

    def __init__(self, layers: int) -> None:
        self._keys: list[Tensor | None] = [None] * layers
        self._values: list[Tensor | None] = [None] * layers
        self._used = [0] * layers
        self._reserved = 0

    def __len__(self) -> int:
        return self._used[0]

    @property
    def layers(self) -> int:
        """Number of decoder layers."""
        return len(self._used)

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Append rows to a layer and return all of its keys and values."""
        used = self._used[layer_idx]
        total = used + keys.shape[2]
        buffers = []
        for store, new in ((self._keys, keys), (self._values, values)):
            buffer = store[layer_idx]
            if buffer is None or buffer.shape[2] < total:
                # Grow by an eighth, so that decoding one token rarely copies the cache.
                room = max(self._reserved, total + total // 8 if used else total)
                grown = new.new_empty((*new.shape[:2], room, new.shape[3]))
                if buffer is not None:
                    grown[:, :, :used] = buffer[:, :, :used]
                store[layer_idx] = buffer = grown
            buffer[:, :, used:total] = new
            buffers.append(buffer[:, :, :total])
        self._used[layer_idx] = total
        return buffers[0], buffers[1]

    def reserve(self, rows: int) -> None:
        """Make room for `rows` rows in total at the next `update`. This avoids growing, which holds all rows twice."""
        self._reserved = rows

    def keys(self, layer: int) -> Tensor:
        """Rotated keys of a layer, (1, KV heads, S, head)."""
        keys = self._keys[layer]
        if keys is None:
            raise ValueError("the cache is empty")
        return keys[:, :, : self._used[layer]]

    def values(self, layer: int) -> Tensor:
        """Values of a layer, (1, KV heads, S, head)."""
        values = self._values[layer]
        if values is None:
            raise ValueError("the cache is empty")
        return values[:, :, : self._used[layer]]

    def truncate(self, length: int) -> None:
        """Drop all rows from `length` on."""
        self._used = [min(used, length) for used in self._used]

    def select(self, rows: Tensor | Sequence[Tensor]) -> None:
        """Keep these rows, in this order. `rows` is one (S,) int64 tensor, or one per layer, all of equal length."""
        if isinstance(rows, Tensor):
            rows = [rows] * self.layers
        for layer, index in enumerate(rows):
            if self._keys[layer] is not None:
                index = index.to(self.keys(layer).device)
                self._keys[layer] = self.keys(layer).index_select(2, index)
                self._values[layer] = self.values(layer).index_select(2, index)
                self._used[layer] = len(index)

    def copy(self, rows: Tensor | None = None) -> KVCache:
        """Return an independent copy, optionally of some rows only."""
        other = KVCache(self.layers)
        for layer in range(self.layers):
            if self._keys[layer] is None:
                continue
            keys, values = self.keys(layer), self.values(layer)
            if rows is None:
                keys, values = keys.clone(), values.clone()
            else:
                keys, values = (x.index_select(2, rows.to(x.device)) for x in (keys, values))
            other._keys[layer], other._values[layer], other._used[layer] = keys, values, keys.shape[2]
        return other

    def share(self) -> KVCache:
        """Return a view of the same rows that later changes do not affect. Read or copy it; do not append to it."""
        other = KVCache(self.layers)
        other._keys, other._values, other._used = list(self._keys), list(self._values), list(self._used)
        return other

    def append(self, other: KVCache) -> None:
        """Append the rows of another cache."""
        for layer in range(self.layers):
            if other._keys[layer] is not None:
                self.update(other.keys(layer), other.values(layer), layer)

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the rows in use as named tensors."""
        tensors = {}
        for layer in range(self.layers):
            if self._keys[layer] is not None:
                tensors[f"{layer}.keys"] = self.keys(layer).contiguous()
                tensors[f"{layer}.values"] = self.values(layer).contiguous()
        return tensors

    @classmethod
    def from_tensors(cls, layers: int, tensors: dict[str, Tensor]) -> KVCache:
        """Restore a cache from `to_tensors`."""
        cache = cls(layers)
        for layer in range(layers):
            if f"{layer}.keys" in tensors:
                cache.update(tensors[f"{layer}.keys"], tensors[f"{layer}.values"], layer)
        return cache

    def nbytes(self) -> int:
        """Size of the rows in use, in bytes."""
        return sum(t.numel() * t.element_size() for t in self.to_tensors().values())


def causal_mask(cached: int, new: int, device: torch.device) -> Tensor:
    """(1, 1, new, cached + new) bool: each new row sees all cached rows, and the new rows up to itself."""
    mask = torch.ones(new, cached + new, dtype=torch.bool, device=device).tril_(cached)
    return mask[None, None]
