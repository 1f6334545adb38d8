"""Token memory of one modality, with a fixed budget. A step over the budget, the discard rule cuts it back."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from salmonn_node.memory import discard_rules as rules
from salmonn_node.memory.token_batch import TokenBatch
from salmonn_node.memory.token_table import TokenTable

__all__ = ["TokenBatch", "TokenMemory", "TokenMemoryConfig"]


@dataclass(frozen=True)
class TokenMemoryConfig:
    """Settings of a token memory.

    Attributes:
        budget: tokens kept after a step, N.
        step: tokens over the budget at which a step runs, S. So at most N + S - 1 tokens are held between calls.
        rule: one of `discard_rules.RULES`.
        seed: seed of the rule `uniform`.
        recent_patches: number of patches that the rule `recent` keeps.
        same_above: for the rules `place`, `ends` and `events`, the cosine from which a dropped token counts as a
            repetition of the kept one. The `count` and `last_ns` of the kept token then cover it.
    """

    budget: int = 16_384
    step: int = 4_096
    rule: str = "paper"
    seed: int = 0
    recent_patches: int = 4
    same_above: float = 0.9

    def __post_init__(self) -> None:
        for name in ("budget", "step", "recent_patches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.rule not in rules.RULES:
            raise ValueError(f"rule: {self.rule!r} is none of {', '.join(rules.RULES)}")


class Keeper(Protocol):
    """Whoever tells the rule `events` which tokens to keep, having seen them all."""

    def observe(self, modality: str, batch: TokenBatch) -> object:
        """Take tokens in, in order of `index`."""

    def wanted(self, modality: str, budget: int) -> dict[int, int]:
        """Original indices of tokens to keep, each with the stamp until which it stands (0: its own)."""
        ...


class TokenMemory:
    """Tokens of one modality, kept within a budget.

    The rule runs whenever the memory is `step` tokens over its budget, however the tokens arrived. So the state
    depends on the stream only. Not thread-safe: `StreamMemory` holds the lock.

    Attributes:
        steps: steps made so far.
        dropped: tokens dropped so far, including those merged into others.
        seen: tokens appended so far.
        keeper: names the tokens that the rule `events` keeps, with the modality of this memory. Without one, `events`
            works as `ends`.
        on_change: called with `appended`, `dropped`, `merged`, `changed` or `forgotten`, and original indices (n,)
            int64. `merged` lists rows that were merged into others; `changed`, rows whose features became a mean.
    """

    def __init__(self, config: TokenMemoryConfig) -> None:
        self.config = config
        self._tokens = TokenTable(config.budget + config.step)
        self._depth = 0
        self._last_index = -1
        self._ordinals: dict[int, tuple[int, int]] = {}  # source -> (patch, its ordinal)
        self._version = 0
        self._view: tuple[int, weakref.ref[TokenBatch]] | None = None
        self.keeper: tuple[Keeper, str] | None = None
        self.on_change: Callable[[str, Tensor], None] | None = None
        self.steps = 0
        self.dropped = 0
        self.seen = 0

    def __len__(self) -> int:
        return len(self._tokens)

    @property
    def nbytes(self) -> int:
        """Size in bytes, including free slots."""
        return self._tokens.nbytes

    @property
    def last_index(self) -> int:
        """Original index of the newest token, -1 before the first."""
        return self._last_index

    @property
    def work(self) -> dict[str, int]:
        """Work so far: similarities computed, bytes of features read for them, and bytes of features written."""
        tokens = self._tokens
        return {
            "similarities": tokens.similarities,
            "bytes_read": tokens.bytes_read,
            "bytes_written": tokens.bytes_written,
        }

    def check(self, batch: TokenBatch) -> None:
        """Raise the ValueError that `append` would raise for this batch, if any."""
        batch.validate()
        depth = 0 if batch.deepstack is None else batch.deepstack.shape[0]
        layout = self._tokens.layout
        if layout is not None:
            width = layout[0] // (1 + self._depth)
            if batch.z.shape[1] != width:
                raise ValueError(f"z: width {batch.z.shape[1]} differs from this memory's {width}")
            if depth != self._depth:
                raise ValueError(f"deepstack: {depth} rows differ from this memory's {self._depth}")
            if (batch.z.dtype, batch.z.device) != layout[1:]:
                raise ValueError(f"z: {batch.z.dtype} on {batch.z.device} differs from this memory's {layout[1:]}")
        if int(batch.index[0]) <= self._last_index:
            raise ValueError(f"index: {int(batch.index[0])} is not after the last one, {self._last_index}")
        assert batch.grid is not None
        largest = int(batch.grid.long().prod(1).max())
        if largest > self.config.budget:
            raise ValueError(f"budget: {self.config.budget} tokens are fewer than one patch of {largest}")

    def append(self, batch: TokenBatch) -> list[Tensor]:
        """Append tokens. Return, for each step made, the original indices that were dropped or merged into others.

        Raises:
            ValueError: the tokens are malformed, their width differs from earlier ones, an index does not increase, or
                a patch exceeds the budget. The state is then unchanged.
        """
        self.check(batch)
        if self._tokens.layout is None:
            self._depth = 0 if batch.deepstack is None else batch.deepstack.shape[0]
        parts, table = batch.parts(), self._with_ordinals(batch.table())
        left: list[Tensor] = []
        start = 0
        while start < len(batch):
            room = self._tokens.capacity - len(self._tokens)
            end = min(len(batch), start + room)
            self._tokens.append([part[start:end] for part in parts], table[start:end])
            self._tell("appended", batch.index[start:end])
            if self.keeper is not None:
                self.keeper[0].observe(self.keeper[1], batch.select(slice(start, end)))
            start = end
            if len(self._tokens) == self._tokens.capacity:
                left.append(self._step())
        if self.config.rule == "recent":  # this rule does not wait for a step: it cuts at every call
            left += self.settle()
        self._last_index = int(batch.index[-1])
        self.seen += len(batch)
        self._version += 1
        return left

    def settle(self) -> list[Tensor]:
        """Make a step now if the memory is over its budget. The public release does so after each slice."""
        over = len(self._tokens) > self.config.budget
        left = [self._step()] if over or self.config.rule == "recent" else []
        self._version += 1
        return left

    def table(self) -> Tensor:
        """(n, 10) int64: metadata of the kept tokens, see `token_batch.COLUMNS`."""
        return self._tokens.table()[:, :-1]

    def view(self) -> TokenBatch:
        """Return a copy of the kept tokens in stream order. Callers share one copy until the memory changes."""
        cached = self._view[1]() if self._view is not None and self._view[0] == self._version else None
        if cached is None:
            cached = TokenBatch.from_table(self._tokens.rows(), self._tokens.table()[:, :-1], self._depth)
            self._view = (self._version, weakref.ref(cached))
        return cached

    def forget_similarities(self) -> None:
        """Clear the cached similarities, so that the next step computes all of them. The tokens do not change."""
        self._tokens.forget_measures()

    def remove(self, after_ns: int, before_ns: int) -> Tensor:
        """Remove what was observed in [after_ns, before_ns] (nanoseconds). Return the original indices removed.

        A merged row that contains any token of the interval is removed as a whole. With the rules `place` and `ends`,
        a row that began before the interval stays, and its `last_ns` is set to just before the interval.
        """
        table = self._tokens.table()
        stamp, last = rules.column(table, "stamp_ns"), rules.column(table, "last_ns")
        touched = (stamp <= before_ns) & (last >= after_ns)
        if self.config.rule not in rules.MERGE_RULES:
            # A row with a count of one also contains the second frame of its patch, so it is removed.
            stays = touched & (stamp < after_ns) & (rules.column(table, "count") > 1)
            lasting = stays.nonzero()[:, 0]
            rules.column(table, "last_ns")[lasting] = after_ns - 1
            self._tokens.write_table(lasting, table[lasting])
            touched &= ~stays
        gone = self._tokens.keep((~touched).nonzero()[:, 0])
        self._version += 1
        self._tell("forgotten", gone)
        return gone

    def _tell(self, kind: str, index: Tensor) -> None:
        if self.on_change is not None and len(index):
            self.on_change(kind, index)

    def _with_ordinals(self, table: Tensor) -> Tensor:
        """(L, 11): add a column to the table: the number of the token's patch among the patches of its source."""
        ordinal = torch.zeros(len(table), 1, dtype=torch.int64)
        source, patch = rules.column(table, "source"), rules.column(table, "patch")
        for value in source.unique().tolist():
            mine = (source == value).nonzero()[:, 0]
            before, number = self._ordinals.get(value, (-1, -1))
            changes = torch.diff(patch[mine], prepend=torch.tensor([before])) != 0
            ordinal[mine, 0] = number + changes.long().cumsum(0)
            self._ordinals[value] = (int(patch[mine[-1]]), int(ordinal[mine[-1], 0]))
        return torch.cat([table, ordinal], dim=1)

    def _step(self) -> Tensor:
        """Cut the memory back to its budget with the rule. Return the original indices that left."""
        rule, budget = self.config.rule, self.config.budget
        if rule in rules.MERGE_RULES:
            gone = self._merge()
        else:
            table = self._tokens.table()
            if rule == "paper":
                keep = rules.keep_paper(self._tokens.cosines(rules.next_token(table)), budget)
            elif rule == "released":
                keep = rules.keep_released(self._tokens.cosines(rules.next_token(table)), budget)
            elif rule in rules.COVERING_RULES:
                keep = self._keep_covering(table)
            elif rule == "uniform":
                keep = rules.keep_uniform(table, budget, self.config.seed)
            elif rule == "fifo":
                keep = rules.keep_fifo(table, budget)
            else:
                keep = rules.keep_recent(table, self.config.recent_patches, budget)
            gone = self._tokens.keep(keep)
        if rule != "recent":
            self.steps += 1
        self.dropped += len(gone)
        self._tell("merged" if rule in rules.MERGE_RULES else "dropped", gone)
        return gone

    def _keep_covering(self, table: Tensor) -> Tensor:
        """Choose by `place` or `ends`. Extend spans and counts of kept tokens over the repetitions dropped."""
        similarity = self._tokens.cosines(rules.previous_at_place(table))
        wanted = until = torch.empty(0, dtype=torch.int64)
        if self.config.rule == "place":
            keep = rules.keep_place(similarity, table, self.config.budget)
        else:
            groups = rules.places(table)
            cosines = [self._tokens.cosine_matrix(group) for group in groups]
            wanted, until = self._wanted(table)
            keep = rules.keep_ends(groups, cosines, table, self.config.budget, wanted)
        owner = rules.absorbed(similarity, table, keep, self.config.same_above)
        rows = (owner >= 0).nonzero()[:, 0]
        count, last = rules.column(table, "count"), rules.column(table, "last_ns")
        count.index_add_(0, owner[rows], count[rows])
        last.scatter_reduce_(0, owner[rows], last[rows], "amax")
        last[wanted] = torch.maximum(last[wanted], until)
        owners = torch.cat([owner[rows], wanted]).unique()
        self._tokens.write_table(owners, table[owners])
        return keep

    def _wanted(self, table: Tensor) -> tuple[Tensor, Tensor]:
        """Positions of the tokens that the keeper wants, and the stamps until which they stand."""
        if self.config.rule != "events" or self.keeper is None:
            none = torch.empty(0, dtype=torch.int64)
            return none, none
        wanted = self.keeper[0].wanted(self.keeper[1], self.config.budget)
        position = {index: row for row, index in enumerate(rules.column(table, "index").tolist())}
        held = [(position[index], until) for index, until in wanted.items() if index in position]
        both = torch.tensor(held, dtype=torch.int64).reshape(-1, 2)
        return both[:, 0], both[:, 1]

    def _merge(self) -> Tensor:
        """Average each segment of similar neighbours into one row. Return the original indices that left."""
        released = self.config.rule == "merge_released"
        table = self._tokens.table()
        similarity = self._tokens.cosines(rules.next_token(table))
        bounds = (rules.merge_bounds_released if released else rules.merge_bounds)(similarity, self.config.budget)
        first, end = bounds[:-1], bounds[1:]
        merged = table[first]
        changed = (end - first > 1).nonzero()[:, 0]
        count, last = rules.column(table, "count"), rules.column(table, "last_ns")
        for a, b in zip(first[changed].tolist(), end[changed].tolist(), strict=True):
            rows = self._tokens.rows(slice(a, b)).float()
            weight = (torch.ones(b - a) if released else count[a:b].float()).to(rows.device)
            self._tokens.write_row(a, (rows * (weight / weight.sum())[:, None]).sum(0))
        segment = torch.bucketize(torch.arange(len(table)), bounds[1:], right=True)
        inside = segment < len(first)  # the bounds of the release leave out the newest rows
        rules.column(merged, "count").zero_().index_add_(0, segment[inside], count[inside])
        rules.column(merged, "last_ns").scatter_reduce_(0, segment[inside], last[inside], "amax")
        if released:  # the release gives a row the index of the next segment's first token; its stamps stay
            rules.column(merged, "index")[:] = rules.column(table, "index")[end]
        self._tokens.forget_cosines(torch.cat([first[changed], (first[changed] - 1).clamp_min(0)]))
        self._tokens.keep(first)
        self._tokens.write_table(torch.arange(len(first)), merged)
        self._tell("changed", rules.column(merged, "index")[changed])
        before, after = rules.column(table, "index"), rules.column(merged, "index")
        return before[~torch.isin(before, after)]

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the whole state as tensors and JSON values. `from_tensors` continues the stream bit for bit."""
        tensors = {"features": self._tokens.rows(), "table": self._tokens.table(), "known": self._tokens.known()}
        meta = {
            "config": asdict(self.config),
            "depth": self._depth,
            "last_index": self._last_index,
            "ordinals": [[source, *value] for source, value in sorted(self._ordinals.items())],
            "steps": self.steps,
            "dropped": self.dropped,
            "seen": self.seen,
            "work": self.work,
        }
        return tensors, meta

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], meta: dict[str, Any]) -> TokenMemory:
        """Restore a memory from `to_tensors`.

        Raises:
            ValueError: a tensor is missing, or its shape does not fit.
        """
        memory = cls(TokenMemoryConfig(**meta["config"]))
        for name in ("features", "table", "known"):
            if name not in tensors:
                raise ValueError(f"tensors: {name} is missing")
        length = len(tensors["features"])
        if tuple(tensors["table"].shape) != (length, len(rules.TABLE)) or tuple(tensors["known"].shape) != (3, length):
            raise ValueError(f"tensors: table or known do not fit {length} rows of features")
        memory._depth = int(meta["depth"])
        memory._last_index = int(meta["last_index"])
        memory._ordinals = {int(s): (int(p), int(o)) for s, p, o in meta["ordinals"]}
        memory.steps, memory.dropped, memory.seen = int(meta["steps"]), int(meta["dropped"]), int(meta["seen"])
        if memory.seen:
            memory._tokens.append([tensors["features"]], tensors["table"])
            memory._tokens.restore_known(tensors["known"])
        for name in ("similarities", "bytes_read", "bytes_written"):
            setattr(memory._tokens, name, int(meta["work"][name]))
        return memory
