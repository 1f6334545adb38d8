"""Events of a stream, told apart once, that pass through an event memory again and again, never twice the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from salmonn_node.lab.training.event_scores import CELLS, audio_batch, visual_batch
from salmonn_node.lab.training.streams import CUT_S, Tokens
from salmonn_node.lab.world.truth import START_NS
from salmonn_node.memory.event_heads import EventHeads
from salmonn_node.memory.event_memory import EventMemory
from salmonn_node.memory.events import MODALITIES, Event, SegmentConfig
from salmonn_node.memory.sight_segments import SightSegmenter
from salmonn_node.memory.sound_segments import SoundSegmenter
from salmonn_node.stream.observations import SECOND_NS

# How events of one thing differ on held-out worlds: .96 to .98 for sights and .95 to .96 for sounds, in the median.
COSINE = {"visual": 0.97, "audio": 0.95}
# Share of sights that show two things at once and so resemble nothing; .04 to .07 of those told from held-out worlds
# have no sure name.
FALSE_SHARE = 0.06


@dataclass(frozen=True)
class Ended:
    """An event of a stream and the second of the stream at which it was known to have ended."""

    second: int
    event: Event


def told(heads: EventHeads, tokens: Tokens, config: SegmentConfig | None = None) -> list[Ended]:
    """The events of a stream in order of their end; those that run at its end have ended."""
    config = config or SegmentConfig()
    eyes, ears = SightSegmenter(heads, config), SoundSegmenter(heads, config)
    seen, heard = visual_batch(tokens), audio_batch(tokens)
    out: list[Ended] = []
    for second in range(0, tokens.truth.seconds, CUT_S):
        low, high = second // 2 * CELLS, (second + CUT_S) // 2 * CELLS
        ended = [*eyes.observe(seen.select(slice(low, high)))]
        ended += ears.observe(heard.select(slice(2 * second, 2 * (second + CUT_S))))
        out += [Ended(second + CUT_S, event) for event in ended]
    running = [e for part in (eyes, ears) for e in part.open if part.makes_event(e)]
    return out + [Ended(tokens.truth.seconds, event) for event in running]


class Replay:
    """Adds told events to an event memory as if their streams came one after another.

    Args:
        memory: the event memory.
        seed: each time an event comes, its keys differ a little, and some sights are false. None: it is as it was.
        number: of the first event; greater than all numbers that the memory holds.

    Attributes:
        events: how many it added.
    """

    def __init__(self, memory: EventMemory, seed: int | None = None, number: int = 1_000_000) -> None:
        self.memory, self.events = memory, 0
        self._number = number
        self._random = None if seed is None else np.random.default_rng(seed)

    def add(self, ended: Sequence[Ended], start_s: int) -> None:
        """Add the events of a stream that began at second `start_s` of the memory's clock."""
        shift = start_s * SECOND_NS
        for one in ended:
            event = replace(
                one.event, number=self._number, first_ns=one.event.first_ns + shift,
                last_ns=one.event.last_ns + shift, tokens=(-1, -1, -1), pose_id=-1,
            )  # fmt: skip
            if self._random is not None:
                self._vary(event, ended, self._random)
            self._number, self.events = self._number + 1, self.events + 1
            now_ns = START_NS + (start_s + one.second) * SECOND_NS
            for modality in MODALITIES:
                self.memory.add(modality, [event] if modality == event.modality else [], now_ns)

    def _vary(self, event: Event, ended: Sequence[Ended], random: np.random.Generator) -> None:
        """Turn the keys by a random angle; a false sight shows another thing as well."""
        if event.modality == "visual" and random.random() < FALSE_SHARE:
            other = ended[int(random.integers(len(ended)))].event
            if other.modality == "visual":
                length = float(torch.linalg.vector_norm(event.key.float()))
                share = float(random.uniform(0.3, 0.7))
                mixed = share * event.direction + (1 - share) * other.direction
                event.key = length * mixed / torch.linalg.vector_norm(mixed).clamp_min(1e-9)
        event.key = _turned(event.key, COSINE[event.modality], random)
        event.view = _turned(event.view, COSINE["visual"], random)


def _turned(key: Tensor, cosine: float, random: np.random.Generator) -> Tensor:
    """A key of the same length, turned in a random direction by about that cosine."""
    length = torch.linalg.vector_norm(key)
    noise = torch.from_numpy(random.standard_normal(len(key))).float()
    turned = key + math.tan(math.acos(cosine)) * length * noise / math.sqrt(len(key))
    return turned * length / torch.linalg.vector_norm(turned).clamp_min(1e-9)
