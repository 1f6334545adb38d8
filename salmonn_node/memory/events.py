"""Events: what stayed in view or rang for a while, as it is told from the stream of tokens.

A sight is a run of one appearance in plain view of one camera. A sound is a run of one sound at one microphone.
Nothing here knows what a thing is called: two events look alike when their keys (`event_heads.py`) point the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

MODALITIES = ("visual", "audio")


@dataclass(frozen=True)
class SegmentConfig:
    """Settings of the segmentation.

    Attributes:
        present_above: presence from which a token shows, or lets hear, something.
        clear_above: plainness from which a frame counts for a sight.
        join_above: cosine from which neighbouring cells show one thing; below `same_above`, because a cell that holds
            half a thing shows half of its key.
        same_above: cosine from which a sight continues a run.
        sound_above: cosine from which a sound continues a run.
        gap_ns: a run ends when it was out of view, or silent, for longer than this.
        least_frames: frames in plain view that make a sight.
        least_sight: summed weight (presence times steadiness) of the tokens that make a sight.
        least_sound: summed presence that makes a sound.
        coherence: length of the mean key that makes a sight; below it the run showed different things.
    """

    present_above: float = 0.5
    clear_above: float = 0.5
    join_above: float = 0.4
    same_above: float = 0.75
    sound_above: float = 0.5
    gap_ns: int = 1_500_000_000
    least_frames: int = 2
    least_sight: float = 1.0
    least_sound: float = 0.7
    coherence: float = 0.8


@dataclass(eq=False)
class Event:
    """One event, or a run that is still open.

    Attributes:
        number: of the run in its modality, counted from 0 as runs begin; -1 while it has none.
        modality: `visual` or `audio`.
        source: id of the camera or microphone.
        first_ns, last_ns: stamps of the first and the last frame or sound of the run.
        key: (K,) weighted sum of the tokens' keys; its direction is the appearance.
        view: (K_v,) sum of the views' keys. Of a sound (K,): the keys of what was in view, once it is settled.
        weight: sum of the weights.
        frames: frames in plain view, or tokens with sound.
        repeats: how often a sound began: rings, knocks. Of a sight: how many like it were dropped in its favour.
        region: cells covered, as bits of their raster places; 0 for sounds.
        pose_id: of the robot at the first token.
        tokens: original indices of the sharpest, the first and the last token.
        sharpness: weight of the sharpest token.
        together: numbers of the events of the other modality that overlapped it.
        met: of a settled sight (K_a,): sum of the keys of the sounds that overlapped it, or those dropped in its
            favour. Of a sound: empty.
    """

    number: int
    modality: str
    source: int
    first_ns: int
    last_ns: int
    key: Tensor
    view: Tensor
    weight: float = 0.0
    frames: int = 0
    repeats: float = 0.0
    region: int = 0
    pose_id: int = -1
    tokens: tuple[int, int, int] = (-1, -1, -1)
    sharpness: float = -1.0
    together: tuple[int, ...] = ()
    met: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def direction(self) -> Tensor:
        """(K,) key of length 1."""
        key = self.key.float()
        return key / torch.linalg.vector_norm(key).clamp_min(1e-9)

    @property
    def place(self) -> Tensor:
        """(K_v,) key of the view, of length 1."""
        view = self.view.float()
        return view / torch.linalg.vector_norm(view).clamp_min(1e-9)

    @property
    def coherence(self) -> float:
        """0..1: how much the tokens of the run look alike."""
        return float(torch.linalg.vector_norm(self.key)) / max(self.weight, 1e-9)

    def settle(self) -> None:
        """Keep the keys in half precision from now on; the event is over."""
        self.key, self.view, self.met = self.key.half(), self.view.half(), self.met.half()

    def overlaps(self, other: Event, slack_ns: int = 0) -> bool:
        """Whether the two touch in time, give or take `slack_ns`."""
        return self.first_ns <= other.last_ns + slack_ns and other.first_ns <= self.last_ns + slack_ns

    def take(self, tokens: Sequence[tuple[npt.NDArray[np.float32], float, int]]) -> None:
        """Add tokens (key, weight, index), one after the other."""
        total = self.key.numpy()
        for key, weight, index in tokens:
            total = total + weight * key
            self.weight += weight
            if weight > self.sharpness:
                self.sharpness, self.tokens = weight, (index, *self.tokens[1:])
        self.key = torch.from_numpy(total)

    def reach(self, index: int, stamp_ns: int) -> None:
        """Draw the run out to this token and stamp."""
        sharpest, first, _ = self.tokens
        self.tokens, self.last_ns = (sharpest, index if first < 0 else first, index), stamp_ns


def directions(keys: Sequence[Tensor]) -> Tensor:
    """(n, K) keys of length 1 of at least one event, in float32."""
    stacked = torch.stack(list(keys)).float()
    return stacked / torch.linalg.vector_norm(stacked, dim=1, keepdim=True).clamp_min(1e-9)


def to_tensors(events: Iterable[Event]) -> dict[str, Tensor]:
    """Events of one modality as tensors; `from_tensors` is the inverse, bit for bit."""
    listed = list(events)
    table = [[e.number, e.source, e.first_ns, e.last_ns, e.frames, e.region, e.pose_id, *e.tokens] for e in listed]
    amounts = [[e.weight, e.repeats, e.sharpness] for e in listed]
    together = [[row, number] for row, e in enumerate(listed) for number in e.together]
    return {
        "table": torch.tensor(table, dtype=torch.int64).reshape(-1, 10),
        "amounts": torch.tensor(amounts, dtype=torch.float64).reshape(-1, 3),
        "key": torch.stack([e.key for e in listed]) if listed else torch.empty(0, 0),
        "view": torch.stack([e.view for e in listed]) if listed else torch.empty(0, 0),
        "together": torch.tensor(together, dtype=torch.int64).reshape(-1, 2),
        "met": torch.cat([e.met for e in listed]) if listed else torch.empty(0),
        "met_size": torch.tensor([len(e.met) for e in listed], dtype=torch.int64),
    }


def from_tensors(tensors: Mapping[str, Tensor], modality: str) -> list[Event]:
    """The inverse of `to_tensors`.

    Raises:
        KeyError: a tensor is missing.
    """
    partners: dict[int, list[int]] = {}
    for row, number in tensors["together"].tolist():
        partners.setdefault(row, []).append(number)
    # An earlier version kept no `met`.
    sizes = tensors["met_size"].tolist() if "met_size" in tensors else [0] * len(tensors["table"])
    met = torch.split(tensors.get("met", torch.empty(0)), sizes)
    out = []
    for row, (table, amounts) in enumerate(zip(tensors["table"].tolist(), tensors["amounts"].tolist(), strict=True)):
        number, source, first, last, frames, region, pose, *tokens = table
        weight, repeats, sharpness = amounts
        key, view = tensors["key"][row].clone(), tensors["view"][row].clone()
        together = tuple(partners.get(row, ()))
        out.append(
            Event(number, modality, source, first, last, key, view, weight, frames, repeats, region, pose,
                  (tokens[0], tokens[1], tokens[2]), sharpness, together, met[row].clone())
        )  # fmt: skip
    return out


def part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors under `name.`, without that prefix."""
    return {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(name + ".")}
