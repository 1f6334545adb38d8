"""Schedule of events in the flat: objects placed, moved and taken, people, doors, lights and sounds; from a seed."""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass

import numpy as np

from salmonn_node.lab.world.layout import Spot
from salmonn_node.lab.world.objects import COLOURS, PERSON, Thing, pairs
from salmonn_node.lab.world.randomness import generator, is_held_out
from salmonn_node.lab.world.sounds import SOUNDS, SPOKEN
from salmonn_node.lab.world.trajectory import Patrol, Visit


@dataclass(frozen=True)
class Density:
    """Density of events: mean seconds between events of each kind.

    Attributes:
        object_s, person_s, door_s, light_s, sound_s: mean time between events.
        filled: share of stands that hold something at the start.
        dwell_s: shortest and longest look at a spot, seconds.
        max_things: total number of different objects in the flat.
    """

    object_s: float
    person_s: float
    door_s: float
    light_s: float
    sound_s: float
    filled: float
    dwell_s: tuple[float, float]
    max_things: int


SPARSE = Density(90.0, 240.0, 150.0, 400.0, 60.0, 0.5, (4.0, 9.0), 24)
DENSE = Density(7.0, 60.0, 40.0, 300.0, 9.0, 0.8, (3.0, 5.0), 64)


@dataclass(frozen=True)
class WorldEvent:
    """An event in the flat.

    Attributes:
        time_s: seconds from the start of the stream.
        kind: placed, taken, moved, arrived, left, opened, shut, light_on, light_off, or sound.
        room: room of the event.
        spot: name of the spot. Empty for lights and sounds.
        thing: the thing or person. None for doors, lights and sounds.
        to_spot: target spot of a move. Empty otherwise.
        sound: name of the sound. Empty otherwise.
        repeats: number of rings, knocks or beeps.
        duration_s: duration of the sound.
    """

    time_s: float
    kind: str
    room: str
    spot: str = ""
    thing: Thing | None = None
    to_spot: str = ""
    sound: str = ""
    repeats: int = 1
    duration_s: float = 0.0

    def __str__(self) -> str:
        what = self.thing.name if self.thing else ("door" if self.kind in ("opened", "shut") else "")
        if self.kind == "sound":
            times = f" x{self.repeats}" if self.repeats > 1 else ""
            said = f"“{SPOKEN[self.sound]}” is said" if self.sound in SPOKEN else SOUNDS[self.sound].title
            return f"{said}{times} in the {self.room}"
        if self.kind.startswith("light"):
            return f"{self.room} light {'on' if self.kind == 'light_on' else 'off'}"
        place = self.spot.replace("/", " ").replace(" door", "")
        if self.kind == "moved":
            return f"{what} moved, {place} to {self.to_spot.replace('/', ' ')}"
        return f"{what} {self.kind}, {place}"


class History:
    """The state of one place as a step function of time."""

    def __init__(self, initial: object) -> None:
        self._times: list[float] = [float("-inf")]
        self._values: list[object] = [initial]

    def set(self, time_s: float, value: object) -> None:
        """Set the value from this time on. Times must not decrease."""
        self._times.append(time_s)
        self._values.append(value)

    def at(self, time_s: float) -> object:
        """Return the value at a time."""
        return self._values[bisect_right(self._times, time_s) - 1]


class Schedule:
    """All events of a stream in time order, and the state of every place at any time.

    Args:
        patrol: the robot's patrol. Most changes happen where it is not looking.
        seed: seed of the events.
        density: density of events.
    """

    def __init__(self, patrol: Patrol, seed: int, density: Density) -> None:
        self.flat, self.patrol, self.density = patrol.flat, patrol, density
        self._rng = generator(seed, "events")
        everything = pairs(is_held_out(seed))
        picks = self._rng.permutation(len(everything))[: density.max_things]
        self.things = sorted(everything[i] for i in picks)
        people = self._rng.permutation(list(COLOURS))[:4]
        self.people = sorted(Thing(str(c), PERSON) for c in people)
        self.events: list[WorldEvent] = []
        self._stands = [s for s in self.flat.spots if s.kind == "stand"]
        self._doors = [s for s in self.flat.spots if s.kind == "door"]
        self.on_stand = {s.name: History(None) for s in self._stands}
        self.people_at = {s.name: History(None) for s in self._stands}
        self.door_open = {s.name: History(bool(self._rng.random() < 0.5)) for s in self._doors}
        self.light_on = {r.name: History(True) for r in self.flat.rooms}
        self._objects()
        self._people()
        self._doors_and_lights()
        self._sounds()
        self.events.sort(key=lambda e: (e.time_s, e.kind, e.room, e.spot))

    def _times(self, mean_s: float) -> list[float]:
        times, now = [], 0.0
        while True:
            now += float(self._rng.exponential(mean_s)) + 0.2 * mean_s
            if now >= self.patrol.duration_s:
                return times
            times.append(now)

    def _choose(self, options: list) -> object:
        return options[int(self._rng.integers(len(options)))]

    def _watched(self, spot: Spot, time_s: float) -> bool:
        return self.patrol.flat.room_at(*self._robot(time_s)) == spot.room

    def _robot(self, time_s: float) -> tuple[float, float]:
        pose = self.patrol.pose_at(time_s)
        return pose.x, pose.y

    def _objects(self) -> None:
        where: dict[Thing, Spot] = {}
        free = list(self._stands)
        for spot in list(free):
            if self._rng.random() < self.density.filled:
                thing = self._choose([t for t in self.things if t not in where])
                where[thing] = spot
                free.remove(spot)
                self.on_stand[spot.name] = History(thing)
        for time_s in self._times(self.density.object_s):
            # Mostly out of the robot's view. One change in seven may happen in view.
            seen_too = self._rng.random() < 1 / 7
            empty = [s for s in free if seen_too or not self._watched(s, time_s)]
            taken = sorted(t for t, s in where.items() if seen_too or not self._watched(s, time_s))
            kind = str(self._rng.choice(["placed", "taken", "moved"], p=[0.45, 0.3, 0.25]))
            if kind == "placed" and empty:
                # New things first, so that a dense stream has many facts. Later, things return elsewhere.
                fresh = [t for t in self.things if t not in where]
                if not fresh:
                    continue
                thing, spot = self._choose(fresh), self._choose(empty)
                where[thing] = spot
                free.remove(spot)
                self.on_stand[spot.name].set(time_s, thing)
                self.events.append(WorldEvent(time_s, "placed", spot.room, spot.name, thing))
            elif kind == "moved" and empty and taken:
                thing, spot = self._choose(taken), self._choose(empty)
                old = where[thing]
                where[thing] = spot
                free.remove(spot)
                free.append(old)
                self.on_stand[old.name].set(time_s, None)
                self.on_stand[spot.name].set(time_s, thing)
                self.events.append(WorldEvent(time_s, "moved", old.room, old.name, thing, spot.name))
            elif taken:
                thing = self._choose(taken)
                old = where.pop(thing)
                free.append(old)
                self.on_stand[old.name].set(time_s, None)
                self.events.append(WorldEvent(time_s, "taken", old.room, old.name, thing))

    def _people(self) -> None:
        busy_until = {p: 0.0 for p in self.people}
        place_until = {s.name: 0.0 for s in self._stands}
        leaves: list[tuple[float, str, Thing]] = []

        def leave(before_s: float) -> None:
            while leaves and leaves[0][0] <= before_s:
                time_s, name, person = leaves.pop(0)
                self.people_at[name].set(time_s, None)
                self.events.append(WorldEvent(time_s, "left", name.split("/")[0], name, person))

        for time_s in self._times(self.density.person_s):
            leave(time_s)
            idle = [p for p in self.people if busy_until[p] < time_s]
            places = [s for s in self._stands if place_until[s.name] < time_s]
            if not idle or not places:
                continue
            person, spot = self._choose(idle), self._choose(places)
            until = time_s + float(self._rng.uniform(25.0, 120.0))
            busy_until[person] = until + 5.0
            place_until[spot.name] = until + 5.0
            self.people_at[spot.name].set(time_s, person)
            self.events.append(WorldEvent(time_s, "arrived", spot.room, spot.name, person))
            if until < self.patrol.duration_s:
                insort(leaves, (until, spot.name, person))
        leave(self.patrol.duration_s)

    def _doors_and_lights(self) -> None:
        for time_s in self._times(self.density.door_s):
            door = self._choose(self._doors)
            is_open = not self.door_open[door.name].at(time_s)
            self.door_open[door.name].set(time_s, is_open)
            self.events.append(WorldEvent(time_s, "opened" if is_open else "shut", door.room, door.name))
        for time_s in self._times(self.density.light_s):
            dark = [r.name for r in self.flat.rooms if not self.light_on[r.name].at(time_s)]
            if dark:
                room, kind = dark[0], "light_on"
            else:
                room, kind = self._choose([r.name for r in self.flat.rooms]), "light_off"
            self.light_on[room].set(time_s, kind == "light_on")
            self.events.append(WorldEvent(time_s, kind, room))

    def _sounds(self) -> None:
        looks = [v for v in self.patrol.visits if v.end_s - v.start_s > 2.5]
        last_end = 0.0
        names = list(SOUNDS)
        for time_s in self._times(self.density.sound_s):
            visit: Visit | None = None
            if (
                looks and self._rng.random() < 0.7
            ):  # while the robot looks at something, so that questions can combine both
                visit = min(looks, key=lambda v: abs(v.start_s - time_s))
                time_s = visit.start_s + 0.4
            name = str(self._choose(names))
            sound = SOUNDS[name]
            repeats = int(self._rng.integers(1, sound.max_repeats + 1))
            duration = float(np.round(sound.seconds(repeats, self._rng), 2))
            here = self.flat.room_at(*self._robot(time_s))
            room = here if self._rng.random() < 0.75 else str(self._choose([r.name for r in self.flat.rooms]))
            if time_s < last_end + 1.0 or time_s + duration > self.patrol.duration_s:
                continue
            last_end = time_s + duration
            self.events.append(WorldEvent(time_s, "sound", room, sound=name, repeats=repeats, duration_s=duration))
