"""Online segmentation of visual tokens into sights, patch by patch, in bounded state.

Cells next to each other whose keys agree show one thing. A thing continues the open run whose key is nearest to its
own; a run ends when it has been out of plain view for longer than the gap.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from salmonn_node.memory import events as event_tensors
from salmonn_node.memory.event_heads import EventHeads, Sighted
from salmonn_node.memory.events import Event, SegmentConfig
from salmonn_node.memory.token_batch import TokenBatch


class SightSegmenter:
    """Sights of all cameras. Work is done per whole patch, so it does not matter how tokens are cut into calls.

    Attributes:
        open: runs that go on, in order of their beginning.
    """

    def __init__(self, heads: EventHeads, config: SegmentConfig) -> None:
        self.heads, self.config = heads, config
        self.open: list[Event] = []
        self._waiting: list[TokenBatch] = []
        self._number = 0

    def copy(self) -> SightSegmenter:
        """A copy that may be fed further, while this one stays as it is."""
        copy = SightSegmenter(self.heads, self.config)
        copy.open, copy._waiting, copy._number = [replace(run) for run in self.open], list(self._waiting), self._number
        return copy

    def observe(self, batch: TokenBatch) -> list[Event]:
        """Take visual tokens in, in order of `index`; returns the runs that ended as events."""
        ended: list[Event] = []
        start = 0
        for last in batch.ends_patch().nonzero()[:, 0].tolist():
            patch = batch if last + 1 - start == len(batch) else batch.select(slice(start, last + 1))
            if self._waiting:
                patch, self._waiting = TokenBatch.concat([*self._waiting, patch]), []
            ended += self._patch(patch)
            start = last + 1
        if start < len(batch):
            self._waiting.append(batch.select(slice(start, None)))
        return ended

    @property
    def between_patches(self) -> bool:
        """Whether the last token taken in ended a patch."""
        return not self._waiting

    def _patch(self, patch: TokenBatch) -> list[Event]:
        """One temporal patch: what it shows continues runs or begins some; runs out of view end."""
        assert patch.grid is not None
        assert patch.last_ns is not None
        read = self.heads.look(patch.features(), self.config.present_above)
        presence, clear = read.presence.tolist(), read.clear.tolist()
        weight = (read.presence * read.steady).tolist()
        source, index, place = int(patch.source[0]), patch.index.tolist(), patch.place.tolist()
        groups = self._groups(presence, read.key, place, int(patch.grid[0, 1]))
        runs = self._matched(groups, read, source)
        # Sums of a few numbers take a fifth of the time as arrays.
        key, view = read.key.numpy(), read.view.numpy()
        ended: list[Event] = []
        for frame, stamp in enumerate(sorted({int(patch.stamp_ns[0]), int(patch.last_ns[0])})):
            for number, group in enumerate(groups):
                if max(clear[cell][frame] * presence[cell] for cell in group) <= self.config.clear_above:
                    continue
                run = runs[number]
                if run is None:
                    zeros = torch.zeros(key.shape[1]), torch.zeros(len(view))
                    run = Event(self._number, "visual", source, stamp, 0, *zeros, pose_id=int(patch.pose_id[0]))
                    self._number += 1
                    runs[number] = run
                    self.open.append(run)
                run.view = torch.from_numpy(run.view.numpy() + view)
                run.frames += 1
                run.take([(key[cell], weight[cell], index[cell]) for cell in group])
                for cell in group:
                    run.region |= 1 << place[cell]
                run.reach(index[group[0]], stamp)
            ended += self._close(source, stamp)
        return ended

    def _groups(self, presence: list[float], key: Tensor, place: list[int], wide: int) -> list[list[int]]:
        """Cells of one thing each, the strongest thing and its strongest cell first."""
        cells = [c for c, p in enumerate(presence) if p > self.config.present_above]
        cells.sort(key=lambda c: (-presence[c], c))
        cosines = (key @ key.T).tolist() if len(cells) > 1 else []
        groups: list[list[int]] = []
        for cell in cells:
            best, nearest = None, -2.0
            for group in groups:
                cosine = cosines[cell][group[0]]
                near = any(_neighbours(place[cell], place[other], wide) for other in group)
                joins = cosine >= self.config.same_above or (near and cosine >= self.config.join_above)
                if joins and cosine > nearest:
                    best, nearest = group, cosine
            if best is None:
                groups.append([cell])
            else:
                best.append(cell)
        return groups

    def _matched(self, groups: list[list[int]], read: Sighted, source: int) -> list[Event | None]:
        """For each group the run that it continues, None where it begins one; the surest pairs first, each run once."""
        out: list[Event | None] = [None] * len(groups)
        runs = [event for event in self.open if event.source == source]
        if not runs or not groups:
            return out
        weighted = (read.presence * read.steady)[:, None] * read.key
        means = [weighted[group[0]] if len(group) == 1 else weighted[group].sum(0) for group in groups]
        shown, known = event_tensors.directions(means), event_tensors.directions([run.key for run in runs])
        cosines = (shown @ known.T).tolist()
        pairs = sorted((-value, g, r) for g, row in enumerate(cosines) for r, value in enumerate(row))
        used: set[int] = set()
        done: set[int] = set()
        for value, g, r in pairs:
            if -value >= self.config.same_above and g not in done and r not in used:
                out[g] = runs[r]
                done.add(g)
                used.add(r)
        return out

    def _close(self, source: int, now_ns: int) -> list[Event]:
        """End the runs of a camera that have been out of view for too long; returns those that make events."""
        over = [e for e in self.open if e.source == source and now_ns - e.last_ns > self.config.gap_ns]
        if over:
            self.open = [e for e in self.open if e not in over]
        return [e for e in over if self.makes_event(e)]

    def makes_event(self, run: Event) -> bool:
        """Whether a run was long and steady enough."""
        steady = run.weight >= self.config.least_sight and run.coherence >= self.config.coherence
        return steady and run.frames >= self.config.least_frames

    def forget(self, after_ns: int, before_ns: int) -> int:
        """Drop the open runs, and the tokens that wait for their patch, of an interval; returns how many runs."""
        stay = [e for e in self.open if e.last_ns < after_ns or e.first_ns > before_ns]
        gone, self.open = len(self.open) - len(stay), stay
        self._waiting = [b for b in self._waiting if not bool(b.within(after_ns, before_ns or 1).any())]
        return gone

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The whole state as tensors and JSON values; `restore` continues bit for bit."""
        tensors = {f"open.{name}": value for name, value in event_tensors.to_tensors(self.open).items()}
        depth = 0
        if self._waiting:
            waiting = TokenBatch.concat(self._waiting)
            depth = 0 if waiting.deepstack is None else waiting.deepstack.shape[0]
            tensors |= {"waiting.features": waiting.features(), "waiting.table": waiting.table()}
        return tensors, {"number": self._number, "depth": depth}

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Continue from what `to_tensors` gave."""
        self.open = event_tensors.from_tensors(event_tensors.part(tensors, "open"), "visual")
        self._number = int(meta["number"])
        waiting = event_tensors.part(tensors, "waiting")
        self._waiting = []
        if waiting:
            self._waiting = [TokenBatch.from_table(waiting["features"], waiting["table"], int(meta["depth"]))]


def _neighbours(a: int, b: int, wide: int) -> bool:
    """Whether two raster places touch, corners included."""
    return abs(a // wide - b // wide) <= 1 and abs(a % wide - b % wide) <= 1
