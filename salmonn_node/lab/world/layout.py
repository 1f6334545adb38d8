"""Layout of the flat: a grid of rooms, the doorways between them, and the spots for things; drawn from a seed."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from salmonn_node.lab.world.randomness import generator, is_held_out

ROOM_SIZE_M = 4.0
WALL_HEIGHT_M = 2.4
WALL_THICKNESS_M = 0.1
DOORWAY_WIDTH_M = 1.2
STAND_HEIGHT_M = 0.5
SPOT_OFFSET_M = 1.35  # from the room's middle to a stand, along both axes
VIEW_OFFSET_M = 0.25  # from the room's middle to where the robot stops to look at it
PERSON_OFFSET_M = (1.65, 0.95)  # from the room's middle to a person beside a stand: close to one wall only

# name -> (wall colour, floor colour, second floor colour); fixed, so that you can recognise a room by its looks
ROOMS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "kitchen": ((0.80, 0.72, 0.52), (0.78, 0.78, 0.76), (0.35, 0.35, 0.36)),
    "bedroom": ((0.50, 0.58, 0.72), (0.46, 0.36, 0.28), (0.42, 0.33, 0.26)),
    "bathroom": ((0.52, 0.70, 0.66), (0.72, 0.80, 0.80), (0.52, 0.64, 0.66)),
    "office": ((0.62, 0.62, 0.64), (0.30, 0.34, 0.38), (0.26, 0.30, 0.34)),
    "lounge": ((0.72, 0.54, 0.46), (0.58, 0.42, 0.26), (0.52, 0.37, 0.22)),
    "hall": ((0.60, 0.66, 0.46), (0.50, 0.48, 0.42), (0.62, 0.60, 0.54)),
}
SIDES = {"east": (1, 0), "north": (0, 1), "west": (-1, 0), "south": (0, -1)}
CORNERS = {"north-east": (1, 1), "north-west": (-1, 1), "south-west": (-1, -1), "south-east": (1, -1)}


@dataclass(frozen=True)
class Spot:
    """A place that the robot looks at: a stand in a corner, or a door in an outer wall.

    Attributes:
        name: unique in the flat, such as "kitchen/north-east" or "kitchen/door".
        room: the room's name.
        kind: "stand" or "door".
        position: (x, y) of the stand or the door, metres in the map frame.
        view: (x, y) where the robot stands to look at it.
        person: (x, y) of a person who is visible together with it. None at doors.
    """

    name: str
    room: str
    kind: str
    position: tuple[float, float]
    view: tuple[float, float]
    person: tuple[float, float] | None

    @property
    def heading_rad(self) -> float:
        """Direction from `view` to the spot."""
        return float(np.arctan2(self.position[1] - self.view[1], self.position[0] - self.view[0]))


@dataclass(frozen=True)
class Room:
    """A square room. `doorways` names the neighbour on each side that has one; `outer` lists the other sides."""

    name: str
    centre: tuple[float, float]
    doorways: dict[str, str]
    outer: tuple[str, ...]
    spots: tuple[Spot, ...]


@dataclass(frozen=True)
class Flat:
    """All rooms of one seed, in grid order. The origin of the map is the south-west corner of the flat."""

    rooms: tuple[Room, ...]
    columns: int
    rows: int

    def room(self, name: str) -> Room:
        """Return the room of that name. Raises KeyError if there is none."""
        return next(r for r in self.rooms if r.name == name) if name in {r.name for r in self.rooms} else _missing(name)

    def room_at(self, x: float, y: float) -> str:
        """Name of the room that contains a point, or of the nearest room if the point is outside."""
        return min(self.rooms, key=lambda r: max(abs(r.centre[0] - x), abs(r.centre[1] - y))).name

    @property
    def spots(self) -> tuple[Spot, ...]:
        """All spots of the flat."""
        return tuple(s for r in self.rooms for s in r.spots)

    def doorway(self, a: str, b: str) -> tuple[float, float]:
        """Middle of the doorway between two neighbouring rooms."""
        ca, cb = self.room(a).centre, self.room(b).centre
        return (ca[0] + cb[0]) / 2, (ca[1] + cb[1]) / 2

    def walls_between(self, a: str, b: str) -> int:
        """Number of rooms that a sound crosses on the shortest path from one room to another."""
        distance, frontier, known = 0, {a}, {a}
        while b not in known:
            frontier = {n for r in frontier for n in self.room(r).doorways.values()} - known
            known |= frontier
            distance += 1
        return distance

    @property
    def signature(self) -> int:
        """A number that is equal for two flats with the same rooms and doorways."""
        text = ";".join(f"{r.name}:{sorted(r.doorways.items())}" for r in self.rooms)
        return zlib.crc32(f"{self.columns}x{self.rows} {text}".encode())


def _missing(name: str) -> Room:
    raise KeyError(f"this flat has no room {name!r}")


def _spots(name: str, centre: tuple[float, float], outer: list[str], rng: np.random.Generator) -> tuple[Spot, ...]:
    cx, cy = centre
    spots = []
    corners = list(CORNERS)
    for index in sorted(rng.permutation(4)[: int(rng.integers(2, 5))]):
        corner = corners[index]
        dx, dy = CORNERS[corner]
        jitter = rng.uniform(-0.06, 0.06, 2)
        position = (cx + dx * SPOT_OFFSET_M + jitter[0], cy + dy * SPOT_OFFSET_M + jitter[1])
        view = (cx + dx * VIEW_OFFSET_M, cy + dy * VIEW_OFFSET_M)
        # To the left of the stand from the robot's view.
        far, near = PERSON_OFFSET_M
        person = (cx + dx * near, cy + dy * far) if dx * dy > 0 else (cx + dx * far, cy + dy * near)
        spots.append(Spot(f"{name}/{corner}", name, "stand", position, view, person))
    if outer:
        side = outer[int(rng.integers(len(outer)))]
        dx, dy = SIDES[side]
        half = ROOM_SIZE_M / 2
        position = (cx + dx * half, cy + dy * half)
        spots.append(Spot(f"{name}/door", name, "door", position, (cx - dx * 0.2, cy - dy * 0.2), None))
    return tuple(spots)


def _draw(rng: np.random.Generator) -> Flat:
    columns, rows = [(2, 2), (3, 2), (2, 3)][int(rng.integers(3))]
    names = [str(n) for n in rng.permutation(list(ROOMS))[: columns * rows]]
    cells = {(i % columns, i // columns): name for i, name in enumerate(names)}
    edges = [(a, (a[0] + d[0], a[1] + d[1])) for a in cells for d in ((1, 0), (0, 1))]
    edges = [(a, b) for a, b in edges if b in cells]
    group = {cell: i for i, cell in enumerate(cells)}
    open_edges = set()
    for index in rng.permutation(len(edges)):  # a random spanning tree, plus a third of the remaining doorways
        a, b = edges[index]
        if group[a] != group[b] or rng.random() < 0.34:
            open_edges.add((a, b))
            old, new = group[b], group[a]
            group = {cell: new if g == old else g for cell, g in group.items()}
    rooms = []
    for cell, name in cells.items():
        doorways, outer = {}, []
        for side, (dx, dy) in SIDES.items():
            other = (cell[0] + dx, cell[1] + dy)
            if other not in cells:
                outer.append(side)
            elif (cell, other) in open_edges or (other, cell) in open_edges:
                doorways[side] = cells[other]
        centre = ((cell[0] + 0.5) * ROOM_SIZE_M, (cell[1] + 0.5) * ROOM_SIZE_M)
        rooms.append(Room(name, centre, doorways, tuple(outer), _spots(name, centre, outer, rng)))
    return Flat(tuple(rooms), columns, rows)


def make_flat(seed: int) -> Flat:
    """Make the flat of a seed. Flats of held-out seeds never occur in training."""
    rng = generator(seed, "layout")
    while True:
        flat = _draw(rng)
        if flat.signature % 2 == int(is_held_out(seed)):
            return flat
