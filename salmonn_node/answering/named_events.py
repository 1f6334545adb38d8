"""Events and names: which events of a view fit a name, and which of those are credible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from salmonn_node.memory.event_names import FITS, LOOKS, EventNames, met_before, signs_of
from salmonn_node.memory.events import Event, directions
from salmonn_node.stream.observations import SECOND_NS

PRESENT = 0.75  # an event is credible from this probability on; chosen on training worlds
# A memory is long once so many sights went in, ten times what it keeps. By then mistakes have gathered that are as
# heavy and last as long as what is real: only how sure the name is, and how often it comes, tells them. A sight whose
# name is less sure than PRESENT is not credible there, unless it is about as sure as the surest of a name that came
# this often a day since it first came. Chosen on training worlds.
LONG, OFTEN, ABOUT = 3200, 5.0, 0.1
DAY_NS = 86_400 * SECOND_NS


@dataclass(frozen=True)
class Fitting:
    """Events that fit a name.

    Attributes:
        events: the credible ones in order of time.
        present: 0..1, how likely it is that what they show was there.
        every: all of them, also those that are not credible.
        signs: (n, SIGNS) of all, None where nothing fits.
    """

    events: tuple[Event, ...] = ()
    present: float = 0.0
    every: tuple[Event, ...] = ()
    signs: Tensor | None = None

    @property
    def there(self) -> bool:
        """Whether it was there."""
        return bool(self.events)


class NamedEvents:
    """The events of one view, and how likely each shows what a name says.

    Args:
        names: read-outs of names.
        sights, sounds: the events that the question may see, in any order.
        now_ns: when the question's stream ends; 0: with the last event.

    Attributes:
        sights, sounds: the same in order of time.
        now_ns: as given, or the end of the last event.
        looks: attribute -> (sights, labels) probabilities of colours and shapes.
        rooms: (sights, labels) of rooms.
        heard: (sounds, labels) of sounds.
    """

    def __init__(self, names: EventNames, sights: Sequence[Event], sounds: Sequence[Event], now_ns: int = 0) -> None:
        self.names = names
        self.now_ns = now_ns or max((e.last_ns for e in (*sights, *sounds)), default=0)
        self.sights = sorted(sights, key=lambda e: (e.first_ns, e.last_ns, e.number))
        self.sounds = sorted(sounds, key=lambda e: (e.first_ns, e.last_ns, e.number))
        self.rooms = self.heard = torch.empty(0, 0)
        self.looks = dict.fromkeys(LOOKS, self.rooms)
        if self.sights:
            looks = directions([e.key for e in self.sights])
            self.looks = {name: names.probabilities(name, looks) for name in LOOKS}
            self.rooms = names.probabilities("room", directions([e.view for e in self.sights]))
        if self.sounds:
            self.heard = names.probabilities("sound", directions([e.key for e in self.sounds]))
        self._long = sum(1 + met_before(e) for e in self.sights) >= LONG
        self._until_ns = max((e.last_ns for e in self.sights), default=0)

    def number(self, attribute: str, label: str) -> int:
        """The column of a label."""
        return self.names.labels[attribute].index(label)

    def thing(self, colour: str, shape: str) -> Fitting:
        """Sights of a thing."""
        if not self.sights:
            return Fitting()
        both = (
            self.looks["colour"][:, self.number("colour", colour)] * self.looks["shape"][:, self.number("shape", shape)]
        )
        return self._fitting("thing", self.sights, both)

    def sound(self, name: str) -> Fitting:
        """Times when a sound was heard."""
        if not self.sounds:
            return Fitting()
        return self._fitting("sound", self.sounds, self.heard[:, self.number("sound", name)])

    def _fitting(self, kind: str, events: Sequence[Event], sure: Tensor) -> Fitting:
        chosen = (sure >= FITS).nonzero()[:, 0].tolist()
        if not chosen:
            return Fitting()
        every = tuple(events[i] for i in chosen)
        signs = signs_of(every, [float(sure[i]) for i in chosen])
        credible = self.names.credibility(kind, signs)
        if self._long and kind == "thing":
            credible = torch.where(self._doubtful(every, sure[chosen]), torch.minimum(credible, sure[chosen]), credible)
        mine = tuple(e for e, c in zip(every, credible.tolist(), strict=True) if c >= PRESENT)
        return Fitting(mine, float(credible.max()), every, signs)

    def _doubtful(self, sights: Sequence[Event], sure: Tensor) -> Tensor:
        """(n,) bool: which sights of one name may be mistakes in a long memory, by how sure (n,) the name is."""
        days = max(1.0, (self._until_ns - min(e.first_ns for e in sights)) / DAY_NS)
        least = PRESENT
        if sum(1 + met_before(e) for e in sights) >= OFTEN * days:
            least = min(least, float(sure.max()) - ABOUT)
        return sure < least
