"""Tokens in slots: rows are written once where there is room, and an order of slots says which comes when."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from salmonn_node.memory.token_batch import COLUMNS

UNKNOWN = -1
# Floats of a block of rows that is compared at once: what stays in a core's cache, or enough to keep a GPU busy.
_BLOCK_FLOATS = {"cpu": 1 << 17, "cuda": 1 << 27}


class TokenTable:
    """Up to `capacity` feature rows with an int64 table and a cached cosine beside each.

    Rows keep their slot from the append to the drop: a step over the budget moves no kept row. The storage grows by
    doubling until the capacity and never shrinks.

    Attributes:
        order: (n,) int64, slots of the tokens in order of the stream.
        bytes_read: bytes of feature rows read to compute cosines.
        bytes_written: bytes of feature rows written by appends and merges.
        similarities: how many cosines were computed.
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
        """Bytes of storage held, free slots included."""
        rows = 0 if self._rows is None else self._rows.numel() * self._rows.element_size()
        return rows + sum(t.numel() * t.element_size() for t in (self._table, self._norm, self._cosine, self._partner))

    @property
    def layout(self) -> tuple[int, torch.dtype, torch.device] | None:
        """Width, dtype and device of the rows; None before the first append."""
        return None if self._rows is None else (self._rows.shape[1], self._rows.dtype, self._rows.device)

    def append(self, parts: Sequence[Tensor], table: Tensor) -> None:
        """Write L rows, given as parts (L, D_i) that lie side by side in a row, and their (L, 11) table; L must fit."""
        width = sum(part.shape[1] for part in parts)
        self._reserve(len(table), parts[0], width)
        slots = torch.tensor([self._free.pop() for _ in range(len(table))], dtype=torch.int64)
        assert self._rows is not None
        column = 0
        for part in parts:  # straight into the slots: the rows are never put together elsewhere
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
        """Free the slots of all tokens but those at these ascending positions; returns the dropped original indices."""
        mask = torch.ones(len(self.order), dtype=torch.bool)
        mask[positions] = False
        slots = self.order[mask]
        self._free.extend(slots.flip(0).tolist())
        self.order = self.order[positions]
        return self._table[slots, 0]

    def table(self) -> Tensor:
        """(n, 11) int64, a copy in the order of the stream: `COLUMNS`, then the patch's ordinal in its source."""
        return self._table[self.order]

    def write_table(self, positions: Tensor, table: Tensor) -> None:
        """Replace the table's rows of these tokens."""
        self._table[self.order[positions]] = table

    def rows(self, positions: Tensor | slice = slice(None)) -> Tensor:
        """(n, F), a copy of the feature rows of these tokens."""
        if self._rows is None:
            return torch.empty(0, 0)
        return self._rows[self.order[positions]]

    def write_row(self, position: int, row: Tensor) -> None:
        """Replace the features of one token; cosines with it are no longer known."""
        assert self._rows is not None
        slot = self.order[position]
        self._rows[slot] = row.to(self._rows.dtype)
        self._norm[slot] = UNKNOWN
        self.bytes_written += row.numel() * self._rows.element_size()

    def forget_cosines(self, positions: Tensor) -> None:
        """Have the cosines of these tokens computed anew when they are next asked for."""
        self._partner[self.order[positions]] = UNKNOWN

    def forget_measures(self) -> None:
        """Have all norms and cosines computed anew when they are next asked for."""
        self._partner[self.order] = UNKNOWN
        self._norm[self.order] = UNKNOWN

    def cosines(self, partner: Tensor) -> Tensor:
        """(n,) float32 cosine of each token with the one at position `partner[n]`; 0 where that is -1.

        A cosine is computed only if the token's partner is another than at the last call, in float32 whatever the
        dtype of the rows: u = e / max(|e|, 1e-12) over the whole vector e.
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
        """(m, m) float32 cosines of the tokens at these positions with each other, on the CPU; nothing is cached."""
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
        """(P,) float32 cosines of rows in these slots, a cache-sized block at a time."""
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
        """Take max(|e|, 1e-12) of the rows in these slots, in float32."""
        assert self._rows is not None
        width, block = self._rows.shape[1], self._block()
        for start in range(0, len(slots), block):
            part = slots[start : start + block]
            self._norm[part] = torch.linalg.vector_norm(self._rows[part].float(), dim=1).clamp_min(1e-12).cpu()
        self.bytes_read += len(slots) * width * self._rows.element_size()

    def known(self) -> Tensor:
        """(3, n) float64: norm and cosine of each token, and the index of the partner it is with; -1 is unknown."""
        unknown = self._partner[self.order] == UNKNOWN
        cosine = torch.where(unknown, 0.0, self._cosine[self.order])
        return torch.stack([self._norm[self.order].double(), cosine.double(), self._partner[self.order].double()])

    def restore_known(self, known: Tensor) -> None:
        """The inverse of `known` after the same rows were appended."""
        self._norm[self.order], self._cosine[self.order] = known[0].float(), known[1].float()
        self._partner[self.order] = known[2].long()
