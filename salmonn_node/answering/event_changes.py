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
from salmonn_node.stream.observations import SECOND_NS

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
        rows: its sights, by their place in `EventReading.sights`.
        first_ns, last_ns: when its sights began and ended.
    """

    room: int
    rows: list[int]
    first_ns: int
    last_ns: int

    def shows(self, sight: Event) -> bool:
        """Whether a sight lies in the visit, in part at least."""
        return sight.last_ns >= self.first_ns and sight.first_ns <= self.last_ns


def visits(reading: EventReading) -> list[Stay]:
    """The robot's visits to rooms, as far as sights tell, in order of time."""
    found: list[Stay] = []
    if not reading.sights:
        return found
    sure, rooms = reading.rooms.max(1)
    for row, sight in enumerate(reading.sights):
        if float(sure[row]) < FITS:
            continue
        room = int(rooms[row])
        if found and found[-1].room == room and sight.first_ns - found[-1].last_ns <= GAP_NS:
            found[-1].rows.append(row)
            found[-1].last_ns = max(found[-1].last_ns, sight.last_ns)
        else:
            found.append(Stay(room, [row], sight.first_ns, sight.last_ns))
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
    candidates = []
    for colour in reading.names.labels["colour"]:
        for shape in reading.names.labels["shape"]:
            found = reading.thing(colour, shape) if shape != WALKS else None
            if found is None or not found.there:
                continue
            # It was there if a credible sight says so; it was not if no sight at all does.
            here, every = (
                [e for e in sights if float(reading.rooms[reading.sights.index(e), room]) >= FITS]
                for sights in (found.events, found.every)
            )
            if new:
                seen = [e for e in here if after.shows(e)]
                elsewhen = any(e.first_ns < after.first_ns for e in every)
            else:
                seen = [e for e in here if before.shows(e)]
                elsewhen = any(e.last_ns > before.last_ns for e in every)
            if seen and not elsewhen:
                candidates.append((reading.names.thing(colour, shape), found.present, seen))
    if len(candidates) != 1:
        return Finding()
    text, present, seen = candidates[0]
    sight = seen[0] if new else seen[-1]
    place = _same_place(sight, [reading.sights[row] for row in (before if new else after).rows])
    return Finding((sight, place), text, present * (NEW if new else GONE))


def _known(reading: EventReading, before: Stay, after: Stay) -> bool:
    """Whether the memory still holds what was seen from one visit to the other, by the numbers of its sights."""
    numbers = [reading.sights[row].number for row in (*before.rows, *after.rows)]
    first, last = min(numbers), max(numbers)
    return sum(first <= e.number <= last for e in reading.sights) >= KNOWN * (last - first + 1)


def _same_place(sight: Event, others: list[Event]) -> Event:
    """Of other sights the one whose view is most like that of a sight."""
    views = torch.stack([functional.normalize(e.view, dim=0) for e in others])
    return others[int((views @ functional.normalize(sight.view, dim=0)).argmax())]
