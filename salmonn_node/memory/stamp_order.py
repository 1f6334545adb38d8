"""Puts tokens of pictures and of sound in the order of their stamps, however they took turns when they arrived."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from torch import Tensor

from salmonn_node.memory.events import MODALITIES
from salmonn_node.memory.token_batch import TokenBatch

Turn = tuple[str, TokenBatch]


class _HeldBack(NamedTuple):
    """Tokens that are held back: rows `start` to `stop` of a batch, reached at a stamp."""

    reached_ns: int
    batch: TokenBatch
    start: int
    stop: int

    def tokens(self) -> TokenBatch:
        whole = self.stop - self.start == len(self.batch)
        return self.batch if whole else self.batch.select(slice(self.start, self.stop))


class StampOrder:
    """Holds tokens back until the other modality has come as far.

    So what depends on both does not depend on which of two threads was faster. Tokens of one modality keep their order.
    A modality that has sent nothing yet is not waited for: one that never comes must not cost the state of the other.

    Args:
        wait_ns: one that lags by more than this is not waited for any longer. 0: nothing is held back.
    """

    def __init__(self, wait_ns: int) -> None:
        self.wait_ns = wait_ns
        self._held: dict[str, deque[_HeldBack]] = {name: deque() for name in MODALITIES}
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
        held = [piece.tokens() for name in MODALITIES for piece in self._held[name]]
        return sum(batch.features().nbytes + batch.table().nbytes for batch in held)

    def push(self, modality: str, batch: TokenBatch) -> list[Turn]:
        """Take tokens in, and return what is due by now, in order: patch by patch, sound between patches at once."""
        assert batch.last_ns is not None
        start, stamps = 0, batch.last_ns.tolist()
        for stop in _ends(modality, batch):
            self._reached_ns[modality] = max(self._reached_ns[modality], stamps[stop - 1])
            self._held[modality].append(_HeldBack(self._reached_ns[modality], batch, start, stop))
            start = stop
        return self._due(waiting=self.wait_ns > 0)

    def drain(self) -> list[Turn]:
        """Return all that is held back, in order."""
        return self._due(waiting=False)

    def _due(self, waiting: bool) -> list[Turn]:
        due: list[tuple[str, _HeldBack]] = []
        # Of equal stamps the pictures go first.
        while heads := [
            (held[0].reached_ns, MODALITIES.index(name), name) for name, held in self._held.items() if held
        ]:
            stamp, _, name = min(heads)
            other_ns = min(self._reached_ns.values())  # this one has come at least to `stamp`
            lag_ns = self._reached_ns[name] - stamp
            if waiting and 0 <= other_ns < stamp and lag_ns < self.wait_ns:
                break
            piece = self._held[name].popleft()
            if due and name == "audio" and due[-1][0] == name and due[-1][1].batch is piece.batch:
                due[-1] = name, due[-1][1]._replace(stop=piece.stop)  # one selection of rows instead of many
            else:
                due.append((name, piece))
        return [(name, piece.tokens()) for name, piece in due]

    def forget(self, after_ns: int, before_ns: int) -> None:
        """Drop what is held back of an interval."""
        for name, held in self._held.items():
            all_of_it = [(piece.reached_ns, piece.tokens()) for piece in held]
            stay = [(stamp, batch.select(~batch.within(after_ns, before_ns or 1))) for stamp, batch in all_of_it]
            self._held[name] = deque(_HeldBack(stamp, batch, 0, len(batch)) for stamp, batch in stay if len(batch))

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The whole state as tensors and JSON values; `restore` continues bit for bit."""
        tensors: dict[str, Tensor] = {}
        depth = 0
        for name, held in self._held.items():
            if held:
                batch = TokenBatch.concat([piece.tokens() for piece in held])
                depth = max(depth, 0 if batch.deepstack is None else batch.deepstack.shape[0])
                tensors |= {f"{name}.features": batch.features(), f"{name}.table": batch.table()}
        lengths = {name: [[p.reached_ns, p.stop - p.start] for p in held] for name, held in self._held.items()}
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
                self._held[name].append(_HeldBack(int(stamp), batch, start, start + length))
                start += length


def _ends(modality: str, batch: TokenBatch) -> list[int]:
    """Where the patches of a batch end, or its single tokens of sound."""
    if modality == "audio":
        return list(range(1, len(batch) + 1))
    numbers = batch.patch.tolist()
    return [*(i for i in range(1, len(numbers)) if numbers[i] != numbers[i - 1]), len(numbers)]
