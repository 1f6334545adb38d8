"""The sound of events until it has words: a short piece of each, bounded in bytes, for a transcriber."""

from __future__ import annotations

from collections.abc import Container
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from salmonn_node.stream.observations import SAMPLE_RATE_HZ, SECOND_NS

SAMPLE_NS = SECOND_NS // SAMPLE_RATE_HZ
# Sound younger than this is held until it is known which events it belongs to.
RECENT_NS = 30 * SECOND_NS
# Of an event the first seconds are kept, with a little before and after it.
CLIP_NS = 8 * SECOND_NS
MARGIN_NS = SECOND_NS // 2

Samples = npt.NDArray[np.int16]


class Clip(NamedTuple):
    """Sound of one microphone: source id, stamps of its first and behind its last sample, (n,) int16 at 16 kHz."""

    source: int
    start_ns: int
    end_ns: int
    samples: Samples


class SoundClips:
    """Pieces of sound by the key of their event; with a bound of 0 nothing is held.

    Args:
        most_bytes: most bytes of all pieces; the oldest go. The last half minute of each microphone is beside them.

    Attributes:
        clips: pieces by key, the oldest first.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.clips: dict[str, Clip] = {}
        self._recent: list[Clip] = []

    @property
    def nbytes(self) -> int:
        """Bytes of all sound held."""
        return sum(clip.samples.nbytes for clip in (*self.clips.values(), *self._recent))

    def hear(self, source: int, start_ns: int, samples: npt.NDArray[np.float32]) -> None:
        """Take sound of a microphone in: (n,) float32 in -1..1 at 16 kHz, from `start_ns` on."""
        if not self.most_bytes:
            return
        whole = np.rint(np.clip(samples, -1, 1) * 32767).astype(np.int16)
        end_ns = start_ns + len(whole) * SAMPLE_NS
        self._recent.append(Clip(source, start_ns, end_ns, whole))
        self._recent = [c for c in self._recent if c.source != source or c.end_ns > end_ns - RECENT_NS]

    def keep(self, key: str, source: int, first_ns: int, last_ns: int) -> None:
        """Keep the sound of an event that ended."""
        low, high = first_ns - MARGIN_NS, min(last_ns, first_ns + CLIP_NS) + MARGIN_NS
        parts = []
        for clip in self._recent:
            if clip.source == source and clip.start_ns < high and clip.end_ns > low:
                from_, to = (max(0, (stamp - clip.start_ns) // SAMPLE_NS) for stamp in (low, high))
                parts.append(clip.samples[from_:to])
        if parts:
            self.clips[key] = Clip(source, low, high, np.concatenate(parts))
        over = sum(c.samples.nbytes for c in self.clips.values()) - self.most_bytes
        for old in list(self.clips):
            if over <= 0:
                break
            over -= self.clips.pop(old).samples.nbytes

    def purge(self, alive: Container[str]) -> None:
        """Let go of the sound of events that are gone."""
        self.clips = {key: clip for key, clip in self.clips.items() if key in alive}

    def forget(self, after_ns: int, before_ns: int) -> None:
        """Remove all sound that touches [after_ns, before_ns]."""
        self._recent = [c for c in self._recent if c.end_ns < after_ns or c.start_ns > before_ns]
        self.clips = {k: c for k, c in self.clips.items() if c.end_ns < after_ns or c.start_ns > before_ns}

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All sound as tensors and JSON values; `restore` continues bit for bit."""
        held = [*self.clips.values(), *self._recent]
        table = [[c.source, c.start_ns, c.end_ns, len(c.samples)] for c in held]
        joined = np.concatenate([c.samples for c in held]) if held else np.empty(0, np.int16)
        tensors = {"table": torch.tensor(table, dtype=torch.int64).reshape(-1, 4), "samples": torch.from_numpy(joined)}
        return tensors, {"keys": list(self.clips)}

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Continue from what `to_tensors` gave; with a bound of 0 the sound is let go.

        Raises:
            KeyError: something is missing.
        """
        held, at, samples = [], 0, tensors["samples"].numpy()
        for source, start_ns, end_ns, size in tensors["table"].tolist():
            held.append(Clip(source, start_ns, end_ns, samples[at : at + size].copy()))
            at += size
        if self.most_bytes:
            keys = [str(key) for key in meta["keys"]]
            self.clips, self._recent = dict(zip(keys, held, strict=False)), held[len(keys) :]
