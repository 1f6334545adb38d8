"""The event log: what happened when, with a picture or two of each event and a short line of words where there is one.

It is kept beside the token memory, whatever its discard rule, for a reader outside the network. Events are found from
the raw tokens by the read-outs of `event_heads.py`. Without read-outs, the log holds the pictures of the album alone.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from salmonn_node.memory import events as event_tensors
from salmonn_node.memory.album import FIRST, Album, Picture, describe
from salmonn_node.memory.event_heads import EventHeads
from salmonn_node.memory.event_memory import EventMemory, EventMemoryConfig
from salmonn_node.memory.events import Event
from salmonn_node.memory.log_entries import AUDIO_TOKEN_NS, LogEntry, entries_of, key_of, view_key
from salmonn_node.memory.sound_clips import SoundClips
from salmonn_node.memory.token_batch import TokenBatch

# Pictures younger than this are held until it is known which events they belong to.
RECENT_NS = 30_000_000_000
# A picture this near to a sound shows what was in view when it was heard.
NEAR_NS = 3_000_000_000


@dataclass(frozen=True)
class EventLogConfig:
    """Bounds.

    Attributes:
        sights, sounds: events kept of each modality.
        pictures: pictures of the album: of alike ones the newest.
        firsts: pictures of the album of first states: of alike ones the first.
        picture_bytes: most bytes of the pictures of events; the album's are beside them.
        sound_bytes: most bytes of the sound of events that have no words yet; 0 where nobody writes them down.
        caption_chars: longest line of words.
    """

    sights: int = 1200
    sounds: int = 600
    pictures: int = 200
    firsts: int = 100
    picture_bytes: int = 12 << 20
    sound_bytes: int = 0
    caption_chars: int = 160


class EventLog:
    """The log of one stream. Any thread may read it and add words; only the stream adds events and pictures.

    Args:
        heads: read-outs of the checkpoint, or None: then no events are told apart.
        config: bounds.

    Attributes:
        captions: words by the key of an entry.
    """

    def __init__(self, heads: EventHeads | None, config: EventLogConfig | None = None) -> None:
        self.heads, self.config = heads, config or EventLogConfig()
        bounds = EventMemoryConfig(sights=self.config.sights, sounds=self.config.sounds)
        self._events = None if heads is None else EventMemory(heads, bounds)
        self._album = Album(self.config.pictures)
        self._firsts = Album(self.config.firsts, FIRST)
        self._shown: dict[str, list[Picture]] = {}
        self._recent: list[Picture] = []
        self._clips = SoundClips(self.config.sound_bytes)
        self.captions: dict[str, str] = {}
        self._dropped = 0
        self._lock = threading.RLock()

    def fresh(self) -> EventLog:
        """An empty one with the same read-outs and bounds."""
        return EventLog(self.heads, self.config)

    @property
    def nbytes(self) -> int:
        """Bytes of events, pictures and words."""
        with self._lock:
            own = [p for pictures in self._shown.values() for p in pictures] + self._recent
            events = 0 if self._events is None else self._events.nbytes
            words = sum(len(text.encode()) for text in self.captions.values())
            albums = self._album.nbytes + self._firsts.nbytes
            return events + albums + sum(len(p.jpeg) for p in own) + self._clips.nbytes + words

    # -- the stream ---------------------------------------------------------------------------------------------------

    def observe(self, modality: str, batch: TokenBatch) -> None:
        """Take raw tokens of a modality (`visual` or `audio`) in, in order of `index`."""
        if self._events is None:
            return
        with self._lock:
            for event in self._events.observe(modality, batch):
                self._shown[key_of(event)] = self._pictures_of(event)
                if modality == "audio":
                    self._clips.keep(key_of(event), event.source, event.first_ns, event.last_ns + AUDIO_TOKEN_NS)
            dropped = sum(self._events.dropped.values())
            if dropped != self._dropped:
                self._dropped = dropped
                self._purge()
            self._bound()

    def add_picture(self, picture: Picture, image: npt.NDArray[np.uint8]) -> None:
        """Take a picture of the stream in. `image` is (H, W, 3) uint8 RGB, the picture decoded."""
        with self._lock:
            found = describe(image)
            self._album.offer(picture, found)
            self._firsts.offer(picture, found)
            self._recent.append(picture)
            running = (
                set() if self._events is None else {(e.source, e.first_ns) for e in self._events.running("visual")}
            )
            until = picture.stamp_ns - RECENT_NS
            self._recent = [p for p in self._recent if p.stamp_ns >= until or (p.source, p.stamp_ns) in running]

    def add_sound(self, source: int, start_ns: int, samples: npt.NDArray[np.float32]) -> None:
        """Take sound of the stream in, before its tokens: (n,) float32 in -1..1 at 16 kHz."""
        with self._lock:
            self._clips.hear(source, start_ns, samples)

    def _pictures_of(self, event: Event) -> list[Picture]:
        """Of a sight the first picture, a middle one and the last; of a sound the one nearest to its beginning."""
        if event.modality == "audio":
            # A token of sound is half a second long, and its stamp is its beginning: the sound began about its middle.
            began = event.first_ns + AUDIO_TOKEN_NS // 2
            near = [p for p in self._recent if abs(p.stamp_ns - began) <= NEAR_NS]
            return sorted(near, key=lambda p: (abs(p.stamp_ns - began), p.stamp_ns, p.source))[:1]
        own = [p for p in self._recent if p.source == event.source and event.first_ns <= p.stamp_ns <= event.last_ns]
        if not own:
            return []
        middle = (event.first_ns + event.last_ns) // 2
        chosen = {own[0], min(own, key=lambda p: (abs(p.stamp_ns - middle), p.stamp_ns)), own[-1]}
        return sorted(chosen, key=lambda p: p.stamp_ns)

    def _held(self) -> list[Event]:
        return [] if self._events is None else [e for m in event_tensors.MODALITIES for e in self._events.events(m)]

    def _keys(self) -> set[str]:
        return {key_of(e) for e in self._held()} | {view_key(p) for p in self._views()}

    def _views(self) -> list[Picture]:
        """The pictures of both albums, each once."""
        return list(dict.fromkeys([*self._firsts.pictures, *self._album.pictures]))

    def _purge(self) -> None:
        """Let go of pictures and words of what is no longer in the log."""
        alive = self._keys()
        self._shown = {key: pictures for key, pictures in self._shown.items() if key in alive}
        self.captions = {key: text for key, text in self.captions.items() if key in alive}
        self._clips.purge(alive)

    def _bound(self) -> None:
        """Of the oldest events one picture stays, and then none, when the bytes are spent."""
        over = sum(len(p.jpeg) for ps in self._shown.values() for p in ps) - self.config.picture_bytes
        for least in (1, 0):
            for key, pictures in self._shown.items():
                if over <= 0:
                    return
                if len(pictures) > least:
                    kept = [pictures[len(pictures) // 2]][:least]
                    over -= sum(len(p.jpeg) for p in pictures) - sum(len(p.jpeg) for p in kept)
                    self._shown[key] = kept

    # -- words --------------------------------------------------------------------------------------------------------

    def set_caption(self, key: str, text: str) -> bool:
        """Give an entry its line of words; returns False when there is no such entry any more."""
        with self._lock:
            if key not in self._keys():
                return False
            if len(self.captions) > self.config.sights + self.config.sounds + 2 * (
                self.config.pictures + self.config.firsts
            ):
                self._purge()
            self.captions[key] = " ".join(text.split())[: self.config.caption_chars]
            self._clips.clips.pop(key, None)  # its words stand for it
            return True

    # -- reading ------------------------------------------------------------------------------------------------------

    def entries(self) -> list[LogEntry]:
        """All entries in order of their beginning, those that still go on included."""
        with self._lock:
            events = self._held()
            shown = dict(self._shown)
            for event in events:
                key = key_of(event)
                if key not in shown:
                    shown[key] = self._pictures_of(event)
            sounds = {key: clip.samples for key, clip in self._clips.clips.items()}
            return entries_of(events, shown, self._views(), self.captions, sounds)

    # -- state --------------------------------------------------------------------------------------------------------

    def forget(self, after_ns: int, before_ns: int) -> int:
        """Remove events, pictures and words of [after_ns, before_ns]; returns how many entries went."""
        with self._lock:
            gone = 0 if self._events is None else self._events.forget(after_ns, before_ns)
            gone += len([p for p in self._views() if after_ns <= p.stamp_ns <= before_ns])
            self._album.forget(after_ns, before_ns)
            self._firsts.forget(after_ns, before_ns)
            self._clips.forget(after_ns, before_ns)
            self._recent = [p for p in self._recent if not after_ns <= p.stamp_ns <= before_ns]
            self._purge()
            # What stays may still show a moment of the interval: the picture beside a sound does.
            for key, pictures in self._shown.items():
                self._shown[key] = [p for p in pictures if not after_ns <= p.stamp_ns <= before_ns]
            return gone

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The whole state as tensors and JSON values; `restore` continues bit for bit."""
        with self._lock:
            tensors: dict[str, Tensor] = {}
            meta: dict[str, Any] = {"captions": dict(self.captions), "dropped": self._dropped}
            if self._events is not None:
                named, meta["events"] = self._events.to_tensors()
                tensors |= {f"events.{key}": value for key, value in named.items()}
            named, meta["album"] = self._album.to_tensors()
            tensors |= {f"album.{key}": value for key, value in named.items()}
            named, meta["firsts"] = self._firsts.to_tensors()
            tensors |= {f"firsts.{key}": value for key, value in named.items()}
            if self.config.sound_bytes:
                named, meta["clips"] = self._clips.to_tensors()
                tensors |= {f"clips.{key}": value for key, value in named.items()}
            meta["shown"] = {key: len(pictures) for key, pictures in self._shown.items()}
            pictures = [p for shown in self._shown.values() for p in shown]
            meta["counts"] = [len(pictures), len(self._recent), len(self._album.pictures)]
            pictures += [*self._recent, *self._album.pictures, *self._firsts.pictures]
            table = [[p.source, p.stamp_ns, len(p.jpeg)] for p in pictures]
            tensors["pictures"] = torch.tensor(table, dtype=torch.int64).reshape(-1, 3)
            joined = np.frombuffer(b"".join(p.jpeg for p in pictures), np.uint8).copy()
            tensors["jpeg"] = torch.from_numpy(joined)
            return tensors, meta

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Continue from what `to_tensors` gave. A state without events continues with none so far.

        Raises:
            KeyError: something is missing.
        """
        with self._lock:
            if self._events is not None and "events" in meta:
                self._events.restore(event_tensors.part(tensors, "events"), meta["events"])
            data, at, pictures = tensors["jpeg"].numpy().tobytes(), 0, []
            for source, stamp_ns, size in tensors["pictures"].tolist():
                pictures.append(Picture(source, stamp_ns, data[at : at + size]))
                at += size
            events, recent, newest = meta["counts"]
            own = iter(pictures[:events])
            self._shown = {key: [next(own) for _ in range(count)] for key, count in meta["shown"].items()}
            self._recent = pictures[events : events + recent]
            album = event_tensors.part(tensors, "album")
            views = pictures[events + recent :]
            self._album.restore(views[:newest], album, meta["album"])
            if "firsts" in meta:  # an earlier version kept none
                self._firsts.restore(views[newest:], event_tensors.part(tensors, "firsts"), meta["firsts"])
            if "clips" in meta:
                self._clips.restore(event_tensors.part(tensors, "clips"), meta["clips"])
            self.captions = {str(key): str(text) for key, text in meta["captions"].items()}
            self._dropped = int(meta["dropped"])
