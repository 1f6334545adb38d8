"""Online segmentation of audio tokens into sounds, half second by half second, in bounded state.

A token is read together with its neighbours, so it is read when its successor has come. A sound continues the open
run of its microphone while its key points the same way; silence for longer than the gap, or another sound, ends it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from salmonn_node.memory import events as event_tensors
from salmonn_node.memory.event_heads import EventHeads, Heard
from salmonn_node.memory.events import Event, SegmentConfig
from salmonn_node.memory.token_batch import TokenBatch


@dataclass
class _Ear:
    """One microphone: its last two tokens with (index, stamp, last stamp), and the run that is open."""

    features: list[Tensor]
    marks: list[list[int]]
    run: Event | None = None

    def followed_by(self, features: Tensor) -> Tensor:
        """(n + 2, D), or (n + 1, D) before its first token: what the n tokens (n, D) are read with, and they."""
        before = [torch.zeros_like(features[0])] * (len(self.features) < 2)
        return torch.cat([torch.stack([*before, *self.features]), features])


class SoundSegmenter:
    """Sounds of all microphones."""

    def __init__(self, heads: EventHeads, config: SegmentConfig) -> None:
        self.heads, self.config = heads, config
        self._ears: dict[int, _Ear] = {}
        self._number = 0

    @property
    def open(self) -> list[Event]:
        """Runs that go on."""
        return [ear.run for ear in self._ears.values() if ear.run is not None]

    def copy(self) -> SoundSegmenter:
        """A copy that may be fed further, while this one stays as it is."""
        copy = SoundSegmenter(self.heads, self.config)
        copy._number = self._number
        copy._ears = {
            source: _Ear(list(ear.features), list(ear.marks), None if ear.run is None else replace(ear.run))
            for source, ear in self._ears.items()
        }
        return copy

    def finish(self) -> list[Event]:
        """Read the newest token of each microphone as if silence followed; returns the runs that ended as events."""
        ended: list[Event] = []
        for source, ear in self._ears.items():
            if ear.features:
                silence = torch.zeros_like(ear.features[-1])[None]
                (read,) = self.heads.listen(ear.followed_by(silence), self.config.present_above)
                ended += self._token(ear, source, read, -1)
        return ended

    def observe(self, batch: TokenBatch) -> list[Event]:
        """Take audio tokens in, in order of `index`; returns the runs that ended as events."""
        return [event for ended in self.by_token(batch) for event in ended]

    def by_token(self, batch: TokenBatch) -> list[list[Event]]:
        """As `observe`, but with the runs that ended at each of the tokens."""
        assert batch.last_ns is not None
        ended: list[list[Event]] = [[] for _ in range(len(batch))]
        features, sources, poses = batch.features(), batch.source.tolist(), batch.pose_id.tolist()
        marks = list(zip(batch.index.tolist(), batch.stamp_ns.tolist(), batch.last_ns.tolist(), strict=True))
        # A token is read when its successor comes. All those of a microphone are read at once, which saves time; only
        # the numbers of runs depend on how the tokens of several microphones take turns.
        waiting: dict[int, Iterator[Heard]] = {}
        for source in dict.fromkeys(sources):
            ear = self._ears.setdefault(source, _Ear([], []))
            mine = features if len(set(sources)) == 1 else features[batch.source == source]
            waiting[source] = iter(self.heads.listen(ear.followed_by(mine), self.config.present_above))
        for row, (source, mark) in enumerate(zip(sources, marks, strict=True)):
            ear = self._ears[source]
            if ear.marks:
                ended[row] = self._token(ear, source, next(waiting[source]), poses[row])
            ear.features = [*ear.features[-1:], features[row]]
            ear.marks = [*ear.marks[-1:], list(mark)]
        for source in waiting:  # copies, so that the whole batch need not stay
            self._ears[source].features = [row.clone() for row in self._ears[source].features]
        return ended

    def _token(self, ear: _Ear, source: int, read: Heard, pose: int) -> list[Event]:
        """The newest token of a microphone, once it is read between its neighbours."""
        index, stamp, last = ear.marks[-1]
        presence = read.presence
        heard = presence > self.config.present_above
        run, ended = ear.run, []
        if run is not None:
            other = heard and float(run.direction @ read.key) < self.config.sound_above
            if other or stamp - run.last_ns > self.config.gap_ns:
                ended = [run] if self.makes_event(run) else []
                run = None
        if heard:
            if run is None:
                zero = torch.zeros_like(read.key)
                run = Event(
                    self._number, "audio", source, stamp, last, zero, torch.zeros(self.heads.key_sizes[0]), pose_id=pose
                )
                self._number += 1
            run.take([(read.key.numpy(), presence, index)])
            run.reach(index, last)
            run.frames += 1
            run.repeats += read.onsets
        ear.run = run
        return ended

    def makes_event(self, run: Event) -> bool:
        """Whether a run was loud enough."""
        return run.weight > self.config.least_sound

    def forget(self, after_ns: int, before_ns: int) -> int:
        """Drop the open runs, and the tokens remembered for context, of an interval; returns how many runs."""
        gone = 0
        for ear in self._ears.values():
            if ear.run is not None and ear.run.last_ns >= after_ns and ear.run.first_ns <= before_ns:
                ear.run, gone = None, gone + 1
            stay = [not after_ns <= stamp <= before_ns for _, stamp, _ in ear.marks]
            ear.features = [f for f, keep in zip(ear.features, stay, strict=True) if keep]
            ear.marks = [m for m, keep in zip(ear.marks, stay, strict=True) if keep]
        return gone

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The whole state as tensors and JSON values; `restore` continues bit for bit."""
        tensors = {f"open.{name}": value for name, value in event_tensors.to_tensors(self.open).items()}
        for source, ear in self._ears.items():
            if ear.features:
                tensors[f"last.{source}"] = torch.stack(ear.features)
        return tensors, {"number": self._number, "marks": {str(s): ear.marks for s, ear in self._ears.items()}}

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Continue from what `to_tensors` gave."""
        self._number = int(meta["number"])
        runs = {e.source: e for e in event_tensors.from_tensors(event_tensors.part(tensors, "open"), "audio")}
        self._ears = {
            int(source): _Ear([row.clone() for row in tensors.get(f"last.{source}", ())], marks, runs.get(int(source)))
            for source, marks in meta["marks"].items()
        }
