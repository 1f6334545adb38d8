"""Online segmentation of audio tokens into sounds, half second by half second, in bounded state.

A token is read together with its neighbours, so it is read when its successor has come. A sound continues the open
run of its microphone while its key points the same way; silence for longer than the gap, or another sound, ends it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from salmonn_node.memory import events as event_tensors
from salmonn_node.memory.event_heads import EventHeads
from salmonn_node.memory.events import Event, SegmentConfig
from salmonn_node.memory.token_batch import TokenBatch


@dataclass
class _Ear:
    """One microphone: its last two tokens with (index, stamp, last stamp), and the run that is open."""

    features: list[Tensor]
    marks: list[list[int]]
    run: Event | None = None


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
                silence = torch.zeros_like(ear.features[-1])
                before = ear.features[-2] if len(ear.features) > 1 else silence
                ended += self._token(ear, source, before, silence, -1)
        return ended

    def observe(self, batch: TokenBatch) -> list[Event]:
        """Take audio tokens in, in order of `index`; returns the runs that ended as events."""
        assert batch.last_ns is not None
        ended: list[Event] = []
        marks = torch.stack([batch.index, batch.stamp_ns, batch.last_ns], dim=1).tolist()
        for features, mark, source, pose in zip(
            batch.features(), marks, batch.source.tolist(), batch.pose_id.tolist(), strict=True
        ):
            ear = self._ears.setdefault(source, _Ear([], []))
            if ear.features:
                before = ear.features[-2] if len(ear.features) > 1 else torch.zeros_like(features)
                ended += self._token(ear, source, before, features, pose)
            ear.features = [*ear.features[-1:], features.clone()]
            ear.marks = [*ear.marks[-1:], mark]
        return ended

    def _token(self, ear: _Ear, source: int, before: Tensor, after: Tensor, pose: int) -> list[Event]:
        """Read the newest token of a microphone between its neighbours."""
        index, stamp, last = ear.marks[-1]
        read = self.heads.listen(before, ear.features[-1], after, self.config.present_above)
        presence = float(read.presence)
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
            run.take(read.key, presence, index)
            run.reach(index, last)
            run.frames += 1
            run.repeats += float(read.onsets)
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
