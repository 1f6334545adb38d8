"""Reads the event memory: what the events that fit a question say.

A question comes as a form and slots (`model/question_head.py`). Events are weighed by how well their keys fit the
slots (`answering/named_events.py`). Times and lengths are the stamps of the event that is pointed at; what is a name is
read from its keys. Where no event fits, the answer is that nothing was observed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from salmonn_node.answering.named_events import Fitting, NamedEvents
from salmonn_node.memory.event_names import FITS, LOOKS
from salmonn_node.memory.events import Event
from salmonn_node.stream.observations import SECOND_NS

NEWEST = 3  # sights that say which colour a thing of a room has: the latest, but one alone may err
SEEN_MASS = 0.3  # of a sound's time in which something was in view, below which nothing was seen when it was heard
HEARD_NS = 1_000_000_000  # a word this far from a sight was still said in front of it
AUDIO_TOKEN_NS = SECOND_NS // 2


@dataclass(frozen=True)
class Finding:
    """What events say.

    Attributes:
        events: the events that the answer rests on, the one that is pointed at first; none: nothing was observed.
        text: the answer in words.
        probability: 0..1, that it is right if the question was understood.
        binary, count, choice, duration_s: the typed value where the type has one.
        of_object: whether a position is that of the thing, not of the robot.
    """

    events: tuple[Event, ...] = ()
    text: str = ""
    probability: float = 1.0
    binary: bool = False
    count: int = 0
    choice: int = 0
    duration_s: float = 0.0
    of_object: bool = False


Slots = Mapping[str, str]


class EventReading(NamedEvents):
    """Reads the events of one view, one method for each form of question."""

    def _subject(self, slots: Slots) -> Fitting:
        return self.sound(slots["sound"]) if "sound" in slots else self.thing(slots["colour"], slots["shape"])

    def exists(self, slots: Slots) -> Finding:
        """Whether it was there."""
        found = self._subject(slots)
        if not found.there:
            return Finding(probability=1 - found.present)
        return Finding(_strongest(found.events), "yes", found.present, binary=True)

    def first(self, slots: Slots) -> Finding:
        """The first time."""
        found = self._subject(slots)
        return Finding(found.events[:1], "", found.present) if found.there else Finding(probability=1 - found.present)

    def last(self, slots: Slots) -> Finding:
        """The last time, or where the robot was then."""
        found = self._subject(slots)
        return Finding(found.events[-1:], "", found.present) if found.there else Finding(probability=1 - found.present)

    def where_object(self, slots: Slots) -> Finding:
        """Where it stood last."""
        return replace(self.last(slots), of_object=True)

    def room(self, slots: Slots) -> Finding:
        """In which room it was last."""
        found = self._subject(slots)
        if not found.there:
            return Finding(probability=1 - found.present)
        chance, number = self.rooms[self.sights.index(found.events[-1])].max(0)
        return Finding(found.events[-1:], self.names.labels["room"][int(number)], found.present * float(chance))

    def how_long(self, slots: Slots) -> Finding:
        """How long it lasted last."""
        reading = self.last(slots)
        if not reading.events:
            return reading
        seconds = length_s(reading.events[0])
        return replace(reading, text=f"{seconds:.0f} seconds", duration_s=seconds)

    def count_sound(self, slots: Slots) -> Finding:
        """How often the sound began, last time."""
        reading = self.last(slots)
        if not reading.events:
            return reading
        count = max(1, round(reading.events[0].repeats))
        return replace(reading, text=str(count), count=count)

    def count_things(self, slots: Slots) -> Finding:
        """How many colours of a shape were there."""
        found = [self.thing(colour, slots["shape"]) for colour in self.names.labels["colour"]]
        there = [f for f in found if f.there]
        sure = 1.0
        for f in found:
            sure *= f.present if f.there else 1 - f.present
        if not there:
            return Finding(probability=sure)
        return Finding(tuple(f.events[-1] for f in there), str(len(there)), sure, count=len(there))

    def colour(self, slots: Slots) -> Finding:
        """Of the things of a shape in a room the colour that the newest credible sights have."""
        if not self.sights:
            return Finding()
        colours, rooms = self.names.labels["colour"], self.rooms[:, self.number("room", slots["room"])]
        there: list[tuple[int, str]] = []
        present = {}
        for colour in colours:
            found = self.thing(colour, slots["shape"])
            present[colour] = found.present
            there += [(row, colour) for row in map(self.sights.index, found.events) if rooms[row] >= FITS]
        if not there:
            return Finding(probability=0.9)
        newest = [row for row, _ in sorted(there)[-NEWEST:]]
        mass = (rooms[newest, None] * self.looks["colour"][newest]).sum(0)
        best = colours[int(mass.argmax())]
        mine = tuple(self.sights[row] for row, colour in sorted(there) if colour == best)
        return Finding(_strongest(mine), best, present[best] * float(mass.max() / mass.sum())) if mine else Finding()

    def seen_when_heard(self, slots: Slots) -> Finding:
        """What was in view at the last time of a sound."""
        reading = self.last(slots)
        if not reading.events:
            return reading
        sound = reading.events[0]
        until = sound.last_ns + AUDIO_TOKEN_NS
        mass = torch.zeros(len(self.names.labels["colour"]), len(self.names.labels["shape"]))
        shown: list[Event] = []
        for i, sight in enumerate(self.sights):
            overlap = min(until, sight.last_ns + SECOND_NS) - max(sound.first_ns - SECOND_NS // 2, sight.first_ns)
            if overlap > 0:
                mass += overlap / SECOND_NS * torch.outer(self.looks["colour"][i], self.looks["shape"][i])
                shown.append(sight)
        if not shown and float(sound.view.norm()) > 0:
            key = functional.normalize(sound.view, dim=0)[None]
            mass = torch.outer(*(self.names.probabilities(name, key)[0] for name in LOOKS))
        elif not shown:
            return Finding(probability=reading.probability)
        colour, shape = divmod(int(mass.argmax()), mass.shape[1])
        text = self.names.thing(self.names.labels["colour"][colour], self.names.labels["shape"][shape])
        return replace(
            reading,
            events=(sound, *shown[:1]),
            text=text,
            probability=reading.probability * float(mass.max() / mass.sum()),
        )

    def _words(self) -> Tensor:
        """(labels,) bool: which sounds are words."""
        return torch.tensor([label in self.names.said for label in self.names.labels["sound"]])

    def said_while_seeing(self, slots: Slots) -> Finding:
        """Which word was heard at any sight of a thing."""
        found = self._subject(slots)
        if not found.there:
            return Finding(probability=1 - found.present)
        words = self._words()
        mass, spoken = torch.zeros(len(words)), []
        for sight in found.events:
            for i, sound in enumerate(self.sounds):
                chance = self.heard[i] * words
                if sight.overlaps(sound, HEARD_NS) and float(chance.sum()) >= FITS:
                    mass += chance
                    spoken.append(sound)
        if not spoken:
            for sight in found.events:
                if len(sight.met) and float(sight.met.norm()) > 0:
                    mass += self.names.probabilities("sound", functional.normalize(sight.met, dim=0)[None])[0] * words
                    spoken.append(sight)
        if float(mass.sum()) < FITS:
            return Finding(probability=found.present)
        best = int(mass.argmax())
        text = self.names.said[self.names.labels["sound"][best]]
        return Finding((spoken[-1], *found.events[-1:]), text, found.present * float(mass[best] / mass.sum()))

    def said_last_digit(self, slots: Slots) -> Finding:
        """The last digit."""
        digits = [i for i, label in enumerate(self.names.labels["sound"]) if label.startswith("digit_")]
        for i in reversed(range(len(self.sounds))):
            chance = self.heard[i]
            if float(chance[digits].sum()) >= FITS:
                best = digits[int(chance[digits].argmax())]
                return Finding(
                    (self.sounds[i],), self.names.said[self.names.labels["sound"][best]], float(chance[best])
                )
        return Finding()

    def order(self, first: Slots, second: Slots) -> Finding:
        """Which of two came first."""
        found = [self._subject(slots) for slots in (first, second)]
        if not all(f.there for f in found):
            return Finding(probability=max(1 - f.present for f in found))
        starts = [f.events[0].first_ns for f in found]
        earlier = int(starts[1] < starts[0])
        events = (found[earlier].events[0], found[1 - earlier].events[0])
        return Finding(events, "", found[0].present * found[1].present, choice=earlier)


def length_s(event: Event) -> float:
    """Seconds that an event lasted: a sight until the end of its last second, a sound until that of its last token."""
    more_ns = AUDIO_TOKEN_NS if event.modality == "audio" else SECOND_NS
    return (event.last_ns - event.first_ns + more_ns) / SECOND_NS


def _strongest(events: Sequence[Event]) -> tuple[Event, ...]:
    """The heaviest event first, then the others from the newest back."""
    best = max(events, key=lambda e: e.weight)
    return (best, *(e for e in reversed(events) if e is not best))
