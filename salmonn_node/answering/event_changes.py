"""What appeared in a room, or was gone from it, between the robot's last two visits, read from events.

What is new was first seen in the room on the last visit. What is gone was last seen there on the visit before. This can
be told as long as the event memory still holds what was seen between the two visits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from salmonn_node.answering.event_reader import EventReading, Finding, Slots
from salmonn_node.memory.event_names import FITS
from salmonn_node.memory.events import Event
from salmonn_node.stream.observations import SECOND_NS, Interval

# Both chosen on training flats. Sights of a room, with none of another room between them, are of one visit up to this
# gap; and a visit with a sight as new as this still goes on, so it is not the last one yet.
GAP_NS, HERE_NS = 40 * SECOND_NS, 20 * SECOND_NS
# How often the only thing that can be meant is the right one: .95 and .88 of training flats, before the temperature of
# their type, which sharpens them to that.
NEW, GONE = 0.88, 0.79
# Between two visits about two of three runs of tokens are events; the rest were too short. Where fewer than this share
# are there, events were dropped, and nobody can tell what was seen on the visit before, nor which one that was.
KNOWN = 0.5
# People walk about by themselves: nobody put or took them.
WALKS = "person"


@dataclass
class Stay:
    """A stay in one room.

    Attributes:
        room: column of the room's label.
        sights: what was seen in it, in order of time; at least one.
    """

    room: int
    sights: list[Event]

    @property
    def first_ns(self) -> int:
        """When its first sight began."""
        return self.sights[0].first_ns

    @property
    def last_ns(self) -> int:
        """When its last sight ended."""
        return max(e.last_ns for e in self.sights)

    def shows(self, sight: Event) -> bool:
        """Whether a sight lies in the stay, in part at least."""
        return Interval(self.first_ns, self.last_ns).overlaps(Interval(sight.first_ns, sight.last_ns))


def visits(reading: EventReading) -> list[Stay]:
    """The robot's visits to rooms, as far as sights tell, in order of time."""
    found: list[Stay] = []
    if not reading.sights:
        return found
    for sight, sure, room in zip(reading.sights, *(x.tolist() for x in reading.rooms.max(1)), strict=True):
        if sure < FITS:
            continue
        if found and found[-1].room == room and sight.first_ns - found[-1].last_ns <= GAP_NS:
            found[-1].sights.append(sight)
        else:
            found.append(Stay(room, [sight]))
    return found


def appeared(reading: EventReading, slots: Slots) -> Finding:
    """Which thing was new in a room on the last visit."""
    return _changed(reading, slots["room"], new=True)


def gone(reading: EventReading, slots: Slots) -> Finding:
    """Which thing was gone from a room on the last visit."""
    return _changed(reading, slots["room"], new=False)


def _changed(reading: EventReading, name: str, new: bool) -> Finding:
    """The one thing that came or went; nothing where there is none, or more than one."""
    room, stays = reading.number("room", name), visits(reading)
    mine = [stay for stay in stays if stay.room == room]
    if mine and mine[-1] is stays[-1] and reading.now_ns - mine[-1].last_ns < HERE_NS:
        mine.pop()
    if len(mine) < 2:
        return Finding()
    before, after = mine[-2:]
    if not _known(reading, before, after):
        return Finding()
    inside = {e for e, chance in zip(reading.sights, reading.rooms[:, room].tolist(), strict=True) if chance >= FITS}
    shown, other = (after, before) if new else (before, after)
    candidates = []
    for colour in reading.names.labels["colour"]:
        for shape in reading.names.labels["shape"]:
            if shape == WALKS:
                continue
            found = reading.thing(colour, shape)
            # It was there if a credible sight says so; it was not if no sight at all does.
            seen = [e for e in found.events if e in inside and shown.shows(e)]
            elsewhen = any(
                e in inside and (e.first_ns < after.first_ns if new else e.last_ns > before.last_ns)
                for e in found.every
            )
            if seen and not elsewhen:
                candidates.append((reading.names.thing(colour, shape), found.present, seen))
    if len(candidates) != 1:
        return Finding()
    text, present, seen = candidates[0]
    sight = seen[0] if new else seen[-1]
    return Finding((sight, _same_place(sight, other.sights)), text, present * (NEW if new else GONE))


def _known(reading: EventReading, before: Stay, after: Stay) -> bool:
    """Whether the memory still holds what was seen from one visit to the other, by the numbers of its sights."""
    numbers = [e.number for e in (*before.sights, *after.sights)]
    first, last = min(numbers), max(numbers)
    return sum(first <= e.number <= last for e in reading.sights) >= KNOWN * (last - first + 1)


def _same_place(sight: Event, others: list[Event]) -> Event:
    """Of other sights the one whose view is most like that of a sight."""
    views = torch.stack([functional.normalize(e.view, dim=0) for e in others])
    return others[int((views @ functional.normalize(sight.view, dim=0)).argmax())]
