"""Puts tokens of pictures and of sound in the order of their stamps, however they took turns when they arrived."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor

from salmonn_node.memory.events import MODALITIES
from salmonn_node.memory.token_batch import TokenBatch

Turn = tuple[str, TokenBatch]


class StampOrder:
    """Holds tokens back until the other modality has come as far.

    So what depends on both does not depend on which of two threads was faster. Tokens of one modality keep their order.
    A modality that has sent nothing yet is not waited for: one that never comes must not cost the state of the other.

    Args:
        wait_ns: one that lags by more than this is not waited for any longer. 0: nothing is held back.
    """

    def __init__(self, wait_ns: int) -> None:
        self.wait_ns = wait_ns
        self._held: dict[str, deque[tuple[int, TokenBatch]]] = {name: deque() for name in MODALITIES}
        self._reached_ns = dict.fromkeys(MODALITIES, -1)

    def copy(self) -> StampOrder:
        """A copy that may be fed further, while this one stays as it is."""
        copy = StampOrder(self.wait_ns)
        copy._held = {name: deque(held) for name, held in self._held.items()}
        copy._reached_ns = dict(self._reached_ns)
        return copy

    @property
    def nbytes(self) -> int:
        """Bytes of the tokens that are held back."""
        held = [batch for name in MODALITIES for _, batch in self._held[name]]
        return sum(batch.features().nbytes + batch.table().nbytes for batch in held)

    def push(self, modality: str, batch: TokenBatch) -> list[Turn]:
        """Take tokens in, and return what is due by now, in order: patch by patch, sound token by sound token."""
        assert batch.last_ns is not None
        start, stamps = 0, batch.last_ns.tolist()
        for stop in _ends(modality, batch):
            piece = batch if stop - start == len(batch) else batch.select(slice(start, stop))
            self._reached_ns[modality] = max(self._reached_ns[modality], stamps[stop - 1])
            self._held[modality].append((self._reached_ns[modality], piece))
            start = stop
        return self._due(waiting=self.wait_ns > 0)

    def drain(self) -> list[Turn]:
        """Return all that is held back, in order."""
        return self._due(waiting=False)

    def _due(self, waiting: bool) -> list[Turn]:
        turns: list[Turn] = []
        # Of equal stamps the pictures go first.
        while heads := [(held[0][0], MODALITIES.index(name), name) for name, held in self._held.items() if held]:
            stamp, _, name = min(heads)
            other_ns = min(self._reached_ns.values())  # this one has come at least to `stamp`
            lag_ns = self._reached_ns[name] - stamp
            if waiting and 0 <= other_ns < stamp and lag_ns < self.wait_ns:
                break
            turns.append((name, self._held[name].popleft()[1]))
        return turns

    def forget(self, after_ns: int, before_ns: int) -> None:
        """Drop what is held back of an interval."""
        for name, held in self._held.items():
            stay = [(stamp, batch.select(~batch.within(after_ns, before_ns or 1))) for stamp, batch in held]
            self._held[name] = deque((stamp, batch) for stamp, batch in stay if len(batch))

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The whole state as tensors and JSON values; `restore` continues bit for bit."""
        tensors: dict[str, Tensor] = {}
        depth = 0
        for name, held in self._held.items():
            if held:
                batch = TokenBatch.concat([piece for _, piece in held])
                depth = max(depth, 0 if batch.deepstack is None else batch.deepstack.shape[0])
                tensors |= {f"{name}.features": batch.features(), f"{name}.table": batch.table()}
        lengths = {name: [[stamp, len(batch)] for stamp, batch in held] for name, held in self._held.items()}
        return tensors, {"reached_ns": dict(self._reached_ns), "held": lengths, "depth": depth}

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Continue from what `to_tensors` gave."""
        for name in MODALITIES:
            self._reached_ns[name] = int(meta["reached_ns"][name])
            self._held[name] = deque()
            if not meta["held"][name]:
                continue
            depth = int(meta["depth"]) if name == "visual" else 0
            batch = TokenBatch.from_table(tensors[f"{name}.features"], tensors[f"{name}.table"], depth)
            start = 0
            for stamp, length in meta["held"][name]:
                self._held[name].append((int(stamp), batch.select(slice(start, start + length))))
                start += length


def _ends(modality: str, batch: TokenBatch) -> list[int]:
    """Where the patches of a batch end, or its single tokens of sound."""
    if modality == "audio":
        return list(range(1, len(batch) + 1))
    counts = torch.unique_consecutive(batch.patch, return_counts=True)[1]
    return [int(end) for end in counts.cumsum(0)]
