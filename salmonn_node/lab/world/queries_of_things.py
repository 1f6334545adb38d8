"""Queries about things: where, when, how long, which colour, how many, and what was said in front of them."""

from __future__ import annotations

from collections.abc import Iterator

from salmonn_node.evaluation.questions import Expected, Tolerance
from salmonn_node.lab.world.layout import ROOMS
from salmonn_node.lab.world.objects import COLOURS, SHAPES, Thing
from salmonn_node.lab.world.query import (
    SETTLE_S,
    Query,
    certain_first,
    certain_last,
    point,
    sight,
    unseen_things,
)
from salmonn_node.lab.world.truth import Episode, Index

OBJECT_TOLERANCE_M = 1.0  # tighter than for robot positions: things are 1.6 m in front of it


def about_things(ix: Index, every: list[Thing]) -> Iterator[Query]:
    """Queries about things and people: existence, position, room, time and duration."""
    for thing, episodes in sorted(ix.episodes.items()):
        words = {"thing": thing.name}
        first, last = episodes[0], episodes[-1]
        seen = tuple(sight(e) for e in episodes)
        share = max(e.share for e in episodes)
        yield Query(
            "existence", "existence_thing", words, "BINARY", Expected(text="yes", binary=True), seen, pixels=share
        )
        if certain_first(ix, first):
            when = Expected(event_start_ns=first.interval.start_ns, event_end_ns=first.interval.end_ns)
            yield Query("when_first", "when_first_thing", words, "TIME", when, (seen[0],), pixels=first.share)
        if not certain_last(ix, last):
            continue
        here = (seen[-1],)
        when = Expected(event_start_ns=last.interval.start_ns, event_end_ns=last.interval.end_ns)
        yield Query("when_last", "when_last_thing", words, "TIME", when, here, pixels=last.share)
        spot = Expected(position_m=point(*last.position), pose_kind="OBJECT", text=last.room)
        near = Tolerance(position_m=OBJECT_TOLERANCE_M)
        yield Query("where_object", "where_object", words, "POSITION", spot, here, pixels=last.share, tolerance=near)
        own = Expected(position_m=point(last.observer.x, last.observer.y, 0.0), text=last.room)
        yield Query("where_robot", "where_robot_thing", words, "POSITION", own, here, pixels=last.share)
        room = Expected(text=last.room, vocabulary=tuple(ROOMS))
        yield Query("room", "room", words, "TEXT", room, here, pixels=last.share)
        if last.last < ix.now - 1 - SETTLE_S and _clean_ends(ix, last):
            long = Expected(duration_s=float(last.last - last.first + 1))
            yield Query("how_long", "how_long_thing", words, "DURATION", long, here, pixels=last.share)
    for thing, instead in unseen_things(ix, every):
        words = {"thing": thing.name}
        for kind, template, answer_type in (
            ("existence", "existence_thing", "BINARY"),
            ("when_first", "when_first_thing", "TIME"),
            ("when_last", "when_last_thing", "TIME"),
            ("where_object", "where_object", "POSITION"),
            ("where_robot", "where_robot_thing", "POSITION"),
            ("room", "room", "TEXT"),
            ("how_long", "how_long_thing", "DURATION"),
        ):
            yield Query(kind, template, words, answer_type, near_miss=instead)


def _clean_ends(ix: Index, episode: Episode) -> bool:
    """Whether the thing left the picture just before and after the look, so that its duration is clear."""
    around = [s for s in ix.glimpses[episode.thing] if episode.first - 6 <= s <= episode.last + 6]
    return len(around) <= episode.last - episode.first + 3


def about_colours(ix: Index) -> Iterator[Query]:
    """Queries about the colour of the only thing of a shape in a room, and about the number of things of a shape."""
    by_room: dict[tuple[str, str], list[Thing]] = {}
    for thing, episodes in ix.episodes.items():
        for episode in episodes:
            by_room.setdefault((thing.shape, episode.room), []).append(thing)
    rooms = sorted({room for room, _, _ in ix.stays})
    for shape in SHAPES:
        glimpsed = [t for t in ix.glimpses if t.shape == shape]
        clear = sorted(t for t in ix.episodes if t.shape == shape)
        for room in rooms:
            words = {"shape": shape, "room": room}
            here = set(by_room.get((shape, room), []))
            if len(here) == 1 and set(glimpsed) == set(clear):
                (thing,) = here
                seen = tuple(sight(e) for e in ix.episodes[thing] if e.room == room)
                colour = Expected(text=thing.colour, vocabulary=tuple(COLOURS))
                share = max(e.share for e in ix.episodes[thing] if e.room == room)
                yield Query("colour", "colour", words, "TEXT", colour, seen, pixels=share)
            elif not here and not glimpsed:
                other = sorted(t for (_, r), things in by_room.items() for t in things if r == room)
                miss = f"same room, other shape: {other[0].name}" if other else "nothing in that room"
                yield Query("colour", "colour", words, "TEXT", near_miss=miss)
            elif not here and clear and set(glimpsed) == set(clear):
                yield Query("colour", "colour", words, "TEXT", near_miss=f"same shape, other room: {clear[0].name}")
        if set(glimpsed) == set(clear):
            words = {"shapes": "crosses" if shape == "cross" else shape + "s"}
            if clear:
                seen = tuple(sight(ix.episodes[t][-1]) for t in clear)
                share = min(max(e.share for e in ix.episodes[t]) for t in clear)
                yield Query("count", "count_things", words, "COUNT", Expected(count=len(clear)), seen, pixels=share,
                            needs_all=True)  # fmt: skip
            else:
                yield Query("count", "count_things", words, "COUNT", near_miss="other shapes only")
