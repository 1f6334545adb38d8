"""Contact sheet of a stream: one image with pictures in time order, and the event log below."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from salmonn_node.lab.world.schedule import WorldEvent
from salmonn_node.lab.world.stream import World
from salmonn_node.lab.world.trajectory import Visit

Image = npt.NDArray[np.uint8]
_PAPER, _INK, _FAINT, _ACCENT = (250, 249, 246), (40, 40, 44), (140, 140, 146), (178, 60, 30)
_FONT = cv2.FONT_HERSHEY_DUPLEX
TILE = (320, 180)
COLUMNS = 4
MARGIN = 24


def clock(seconds: float) -> str:
    """Format stream time as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def text(image: Image, words: str, at: tuple[int, int], scale: float = 0.45, colour: tuple[int, ...] = _INK) -> None:
    """Write text onto an image in place. OpenCV's fonts are ASCII only."""
    plain = words.replace("“", '"').replace("”", '"').encode("ascii", "replace").decode()
    cv2.putText(image, plain, at, _FONT, scale, colour, 1, cv2.LINE_AA)


def pick_visits(world: World, count: int) -> list[Visit]:
    """Choose visits, evenly spread over the stream, preferably with something to see."""

    def full(visit: Visit) -> bool:
        middle, name = (visit.start_s + visit.end_s) / 2, visit.spot.name
        schedule = world.schedule
        return visit.spot.kind == "stand" and bool(
            schedule.on_stand[name].at(middle) or schedule.people_at[name].at(middle)
        )

    visits = [v for v in world.patrol.visits if v.start_s < world.seconds - 1]
    chosen = []
    for part in np.array_split(np.arange(len(visits)), min(count, len(visits))):
        chosen.append(next((visits[i] for i in part if full(visits[i])), visits[part[0]]))
    return chosen


def _tile(world: World, picture: Image, visit: Visit) -> Image:
    out = np.full((TILE[1] + 26, TILE[0], 3), _PAPER, np.uint8)
    out[: TILE[1]] = cv2.resize(picture, TILE, interpolation=cv2.INTER_AREA)
    text(out, clock(visit.start_s), (2, TILE[1] + 17), colour=_ACCENT)
    text(out, visit.spot.name.replace("/", ", "), (56, TILE[1] + 17))
    return out


def _log(events: Sequence[WorldEvent], width: int, columns: int = 3) -> Image:
    rows = -(-len(events) // columns)
    out = np.full((max(1, rows) * 21 + 12, width, 3), _PAPER, np.uint8)
    for i, event in enumerate(events):
        x, y = (i // rows) * (width // columns), 20 + (i % rows) * 21
        text(out, clock(event.time_s), (x, y), 0.42, _ACCENT)
        text(out, str(event), (x + 52, y), 0.42, _FAINT if event.kind in ("left", "light_on") else _INK)
    return out


def contact_sheet(world: World, tiles: int = 24, max_events: int = 75) -> Image:
    """(H, W, 3) uint8 RGB: `tiles` pictures in time order, then the event log."""
    visits = pick_visits(world, tiles)
    with world.camera(640, 360) as camera:
        made = [_tile(world, camera.picture((v.start_s + v.end_s) / 2), v) for v in visits]
    gap = 10
    width = COLUMNS * TILE[0] + (COLUMNS - 1) * gap
    rows = -(-len(made) // COLUMNS)
    high = TILE[1] + 26 + gap
    grid = np.full((rows * high, width, 3), _PAPER, np.uint8)
    for i, tile in enumerate(made):
        x, y = (i % COLUMNS) * (TILE[0] + gap), (i // COLUMNS) * high
        grid[y : y + tile.shape[0], x : x + TILE[0]] = tile
    head = np.full((52, width, 3), _PAPER, np.uint8)
    text(head, f"World {world.seed}: {clock(world.seconds)} minutes", (0, 24), 0.75)
    rooms = ", ".join(r.name for r in world.flat.rooms)
    text(head, f"{len(world.flat.rooms)} rooms: {rooms}; {len(world.events)} events", (0, 46), 0.45, _FAINT)
    events = world.events[:max_events]
    log = _log(events, width)
    parts = [head, grid, log]
    if len(world.events) > max_events:
        more = np.full((24, width, 3), _PAPER, np.uint8)
        text(more, f"... and {len(world.events) - max_events} more events", (0, 16), 0.42, _FAINT)
        parts.append(more)
    body = np.vstack(parts)
    return cv2.copyMakeBorder(body, MARGIN, MARGIN, MARGIN, MARGIN, cv2.BORDER_CONSTANT, value=_PAPER)
