"""Entries of the event log: sights, sounds and views as plain values, each with the kind of thing that it resembles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from salmonn_node.memory.album import Picture
from salmonn_node.memory.events import Event

# Cosine of two keys from which two events are of one kind.
ALIKE = {"visual": 0.75, "audio": 0.6}
SIGHT, SOUND, VIEW = "sight", "sound", "view"
# Half a second of sound is one token, whose stamp is its beginning.
AUDIO_TOKEN_NS = 500_000_000


@dataclass(frozen=True)
class LogEntry:
    """One line of the log.

    Attributes:
        key: name that stays the same while the entry exists.
        what: `sight`, `sound` or `view` (a picture of the album).
        source: id of the camera or microphone.
        first_ns, last_ns: from when to when, ends included.
        repeats: how often a sound began, at least 1.
        kind: entries of one modality with the same number resemble each other; -1 where that is not known.
        pose_id: of the robot at the beginning, -1 when unknown.
        caption: words, "" without.
        pictures: in order of time; empty when there are none.
        sound: (n,) int16 at 16 kHz of a sound that has no words yet, where it is kept for a transcriber; else None.
    """

    key: str
    what: str
    source: int
    first_ns: int
    last_ns: int
    repeats: int
    kind: int
    pose_id: int
    caption: str
    pictures: tuple[Picture, ...]
    sound: npt.NDArray[np.int16] | None = field(default=None, repr=False, compare=False)

    @property
    def picture(self) -> Picture | None:
        """The picture that shows it best: of its middle."""
        return self.pictures[len(self.pictures) // 2] if self.pictures else None


def key_of(event: Event) -> str:
    """Key of an event's entry."""
    return f"{SIGHT if event.modality == 'visual' else SOUND}:{event.number}"


def view_key(picture: Picture) -> str:
    """Key of a picture's entry."""
    return f"{VIEW}:{picture.source}:{picture.stamp_ns}"


def entries_of(
    events: Iterable[Event],
    shown: Mapping[str, Sequence[Picture]],
    album: Iterable[Picture],
    captions: Mapping[str, str],
    sounds: Mapping[str, npt.NDArray[np.int16]],
) -> list[LogEntry]:
    """Entries in order of their beginning.

    Args:
        events: of both modalities.
        shown: pictures of events, by key.
        album: pictures that stand for themselves.
        captions: words by key.
        sounds: samples by key.
    """
    out = []
    for modality in ("visual", "audio"):
        own = sorted((e for e in events if e.modality == modality), key=lambda e: (e.first_ns, e.number))
        for event, kind in zip(own, kinds([e.direction for e in own], ALIKE[modality]), strict=True):
            key = key_of(event)
            last_ns = event.last_ns + (AUDIO_TOKEN_NS if modality == "audio" else 0)
            repeats = max(1, round(event.repeats))
            what, pictures = key.partition(":")[0], tuple(shown.get(key, ()))
            out.append(
                LogEntry(key, what, event.source, event.first_ns, last_ns, repeats, kind, event.pose_id,
                         captions.get(key, ""), pictures, sounds.get(key))
            )  # fmt: skip
    for picture in album:
        key, at = view_key(picture), picture.stamp_ns
        out.append(LogEntry(key, VIEW, picture.source, at, at, 1, -1, -1, captions.get(key, ""), (picture,)))
    return sorted(out, key=lambda entry: (entry.first_ns, entry.key))


def kinds(keys: Sequence[Tensor], alike: float) -> list[int]:
    """A number for each key of length 1: that of the nearest earlier leader within `alike`, else a new one."""
    leaders: list[Tensor] = []
    out = []
    for key in keys:
        if leaders:
            cosines = torch.stack(leaders) @ key
            best = int(cosines.argmax())
            if float(cosines[best]) >= alike:
                out.append(best)
                continue
        out.append(len(leaders))
        leaders.append(key)
    return out
