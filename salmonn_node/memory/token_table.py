"""Token table: feature rows in fixed slots. A row is written once, and an order of slots gives the stream order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from salmonn_node.memory.token_batch import COLUMNS

UNKNOWN = -1
# Floats per block of rows compared at once. A block fits a CPU core's cache, or is large enough to keep a GPU busy.
_BLOCK_FLOATS = {"cpu": 1 << 17, "cuda": 1 << 27}


class TokenTable:
    """Up to `capacity` feature rows, each with a row of int64 metadata and a cached cosine.

    A row stays in its slot from append to drop, so a discard step moves no kept row. The storage doubles until it
    reaches the capacity, and never shrinks.

    Attributes:
        order: (n,) int64, slots of the tokens in stream order.
        bytes_read: bytes of feature rows read to compute cosines.
        bytes_written: bytes of feature rows written by appends and merges.
        similarities: number of cosines computed.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.order = torch.empty(0, dtype=torch.int64)
        self._free: list[int] = []
        self._rows: Tensor | None = None
        columns = len(COLUMNS) + 1
        self._table = torch.empty(0, columns, dtype=torch.int64)
        self._norm = torch.empty(0)
        self._cosine = torch.empty(0)
        self._partner = torch.empty(0, dtype=torch.int64)
        self.bytes_read = 0
        self.bytes_written = 0
        self.similarities = 0

    def __len__(self) -> int:
        return len(self.order)

    @property
    def nbytes(self) -> int:
        """Size of the storage in bytes, including free slots."""
        rows = 0 if self._rows is None else self._rows.numel() * self._rows.element_size()
        return rows + sum(t.numel() * t.element_size() for t in (self._table, self._norm, self._cosine, self._partner))

    @property
    def layout(self) -> tuple[int, torch.dtype, torch.device] | None:
        """Width, dtype and device of the rows, or None before the first append."""
        return None if self._rows is None else (self._rows.shape[1], self._rows.dtype, self._rows.device)

    def append(self, parts: Sequence[Tensor], table: Tensor) -> None:
        """Append L rows: parts (L, D_i), which are concatenated, and their table (L, 11). L must fit the capacity."""
        width = sum(part.shape[1] for part in parts)
        self._reserve(len(table), parts[0], width)
        slots = torch.tensor([self._free.pop() for _ in range(len(table))], dtype=torch.int64)
        assert self._rows is not None
        column = 0
        for part in parts:  # write straight into the slots, without a concatenated copy
            self._rows[:, column : column + part.shape[1]].index_copy_(0, slots.to(part.device), part.detach())
            column += part.shape[1]
        self._table[slots] = table
        self._norm[slots] = UNKNOWN
        self._partner[slots] = UNKNOWN
        self.order = torch.cat([self.order, slots])
        self.bytes_written += len(table) * width * self._rows.element_size()

    def _reserve(self, count: int, like: Tensor, width: int) -> None:
        have = len(self._table)
        need = len(self.order) + count
        if need > self.capacity:
            raise ValueError(f"rows: {need} tokens do not fit the capacity {self.capacity}")
        if self._rows is None:
            self._rows = like.new_empty(0, width)
        if need <= have:
            return
        size = min(self.capacity, max(need, 2 * have, 64))

        def grown(old: Tensor) -> Tensor:
            new = old.new_empty(size, *old.shape[1:])
            new[:have] = old
            return new

        self._rows, self._table = grown(self._rows), grown(self._table)
        self._norm, self._cosine, self._partner = grown(self._norm), grown(self._cosine), grown(self._partner)
        self._free = list(range(size - 1, have - 1, -1)) + self._free

    def keep(self, positions: Tensor) -> Tensor:
        """Keep the tokens at these ascending positions and free the other slots. Return the dropped indices."""
        mask = torch.ones(len(self.order), dtype=torch.bool)
        mask[positions] = False
        slots = self.order[mask]
        self._free.extend(slots.flip(0).tolist())
        self.order = self.order[positions]
        return self._table[slots, 0]

    def table(self) -> Tensor:
        """(n, 11) int64: a copy in stream order. Columns: `COLUMNS`, then the number of the patch in its source."""
        return self._table[self.order]

    def write_table(self, positions: Tensor, table: Tensor) -> None:
        """Replace the table rows of these tokens."""
        self._table[self.order[positions]] = table

    def rows(self, positions: Tensor | slice = slice(None)) -> Tensor:
        """(n, F): a copy of the feature rows of these tokens."""
        if self._rows is None:
            return torch.empty(0, 0)
        return self._rows[self.order[positions]]

    def write_row(self, position: int, row: Tensor) -> None:
        """Replace the features of one token. Its cached cosines become invalid."""
        assert self._rows is not None
        slot = self.order[position]
        self._rows[slot] = row.to(self._rows.dtype)
        self._norm[slot] = UNKNOWN
        self.bytes_written += row.numel() * self._rows.element_size()

    def forget_cosines(self, positions: Tensor) -> None:
        """Invalidate the cached cosines of these tokens. The next request computes them again."""
        self._partner[self.order[positions]] = UNKNOWN

    def forget_measures(self) -> None:
        """Invalidate all cached norms and cosines. The next request computes them again."""
        self._partner[self.order] = UNKNOWN
        self._norm[self.order] = UNKNOWN

    def cosines(self, partner: Tensor) -> Tensor:
        """(n,) float32: cosine of each token with the token at position `partner[n]`. 0 where the partner is -1.

        A cosine is only computed if the partner changed since the last call. It is computed in float32, whatever the
        dtype of the rows, with u = e / max(|e|, 1e-12) over the whole vector e.
        """
        index = self._table[self.order, 0]
        wanted = torch.where(partner >= 0, index[partner], UNKNOWN)
        self._measure(self.order[self._norm[self.order] == UNKNOWN])
        stale = ((wanted != UNKNOWN) & (wanted != self._partner[self.order])).nonzero()[:, 0]
        if len(stale):
            slots = self.order[stale]
            self._cosine[slots] = self._dot(slots, self.order[partner[stale]])
            self._partner[slots] = wanted[stale]
        return torch.where(wanted != UNKNOWN, self._cosine[self.order], 0.0)

    def cosine_matrix(self, positions: Tensor) -> Tensor:
        """(m, m) float32: cosines between the tokens at these positions, on the CPU. Nothing is cached."""
        assert self._rows is not None
        slots = self.order[positions]
        self._measure(slots[self._norm[slots] == UNKNOWN])
        rows = self._rows[slots].float() / self._norm[slots].to(self._rows.device)[:, None]
        self.similarities += len(slots) ** 2
        self.bytes_read += rows.shape[1] * len(slots) * self._rows.element_size()
        return (rows @ rows.T).cpu()

    def _block(self) -> int:
        assert self._rows is not None
        return max(1, _BLOCK_FLOATS.get(self._rows.device.type, 1 << 17) // self._rows.shape[1])

    def _dot(self, left: Tensor, right: Tensor) -> Tensor:
        """(P,) float32: cosines of pairs of slots, computed in cache-sized blocks."""
        assert self._rows is not None
        width, block = self._rows.shape[1], self._block()
        products = []
        for start in range(0, len(left), block):
            a = self._rows[left[start : start + block]].float()
            b = self._rows[right[start : start + block]].float()
            products.append(a.mul_(b).sum(1))
        self.similarities += len(left)
        self.bytes_read += 2 * len(left) * width * self._rows.element_size()
        return torch.cat(products).cpu() / (self._norm[left] * self._norm[right])

    def _measure(self, slots: Tensor) -> None:
        """Compute and cache max(|e|, 1e-12) of the rows in these slots, in float32."""
        assert self._rows is not None
        width, block = self._rows.shape[1], self._block()
        for start in range(0, len(slots), block):
            part = slots[start : start + block]
            self._norm[part] = torch.linalg.vector_norm(self._rows[part].float(), dim=1).clamp_min(1e-12).cpu()
        self.bytes_read += len(slots) * width * self._rows.element_size()

    def known(self) -> Tensor:
        """(3, n) float64: norm and cosine of each token, and the original index of its partner. -1 means unknown."""
        unknown = self._partner[self.order] == UNKNOWN
        cosine = torch.where(unknown, 0.0, self._cosine[self.order])
        return torch.stack([self._norm[self.order].double(), cosine.double(), self._partner[self.order].double()])

    def restore_known(self, known: Tensor) -> None:
        """Restore the values of `known`, after the same rows were appended."""
        self._norm[self.order], self._cosine[self.order] = known[0].float(), known[1].float()
        self._partner[self.order] = known[2].long()
