"""Truth file: truth and event log as JSON, with exact round trips."""

from __future__ import annotations

import json
from typing import Any

from salmonn_node.lab.world.objects import Thing
from salmonn_node.lab.world.stream import World
from salmonn_node.lab.world.trajectory import Pose2D
from salmonn_node.lab.world.truth import START_NS, Looked, Seen, SoundTruth, Truth, WorldMoment

FORMAT = 1


def _state(state: Thing | bool | None) -> Any:
    return [state.colour, state.shape] if isinstance(state, Thing) else state


def _moment(m: WorldMoment) -> list[Any]:
    seen = [[s.thing.colour, s.thing.shape, s.room, s.spot, s.share, s.box, s.position, s.clear] for s in m.seen]
    looked = [[x.spot, x.room, x.kind, _state(x.state)] for x in m.looked]
    return [[m.pose.x, m.pose.y, m.pose.yaw], m.room, m.lit, seen, looked]


def truth_to_json(truth: Truth) -> str:
    """Return one line of JSON. The second of a moment is its place in the list."""
    sounds = [[s.name, s.room, s.repeats, s.start_s, s.end_s, s.snr_db, s.clear, s.faint] for s in truth.sounds]
    value = {
        "format": FORMAT,
        "map_id": truth.map_id,
        "rooms": truth.rooms,
        "sounds": sounds,
        "moments": [_moment(m) for m in truth.moments],
    }
    return json.dumps(value, separators=(",", ":"))


def truth_from_json(text: str) -> Truth:
    """Read a truth from `truth_to_json`.

    Raises:
        ValueError: the text is not a truth, or has another format version.
    """
    value = json.loads(text)
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ValueError(f"not a truth of format {FORMAT}")
    moments = []
    for second, (pose, room, lit, seen, looked) in enumerate(value["moments"]):
        moments.append(
            WorldMoment(
                second,
                Pose2D(*pose),
                room,
                lit,
                tuple(Seen(Thing(c, s), r, p, a, tuple(b), tuple(q), k) for c, s, r, p, a, b, q, k in seen),
                tuple(Looked(p, r, k, Thing(*s) if isinstance(s, list) else s) for p, r, k, s in looked),
            )
        )
    sounds = tuple(SoundTruth(*row) for row in value["sounds"])
    return Truth(tuple(moments), sounds, tuple(value["rooms"]), value["map_id"])


def event_log(world: World) -> list[dict[str, Any]]:
    """Return all events, seen or not: stamp, kind, room, thing, place, and words."""
    rows = []
    for event in world.events:
        row: dict[str, Any] = {
            "stamp_ns": START_NS + round(event.time_s * 1000) * 1_000_000,
            "time_s": round(event.time_s, 3),
            "kind": event.kind,
            "room": event.room,
            "text": str(event),
        }
        if event.thing:
            row |= {"thing": event.thing.name, "spot": event.spot}
        if event.to_spot:
            row["to_spot"] = event.to_spot
        if event.sound:
            row |= {"sound": event.sound, "repeats": event.repeats, "duration_s": event.duration_s}
        rows.append(row)
    heard = {h.event: h for h in world.microphone.heard}
    for row, event in zip(rows, world.events, strict=True):
        if event in heard:
            row |= {"snr_db": round(heard[event].snr_db, 1), "clear": heard[event].clear}
    return rows
