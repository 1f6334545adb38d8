"""Queries: everything one can ask about a stream at a moment, with the right answer, generated from the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from salmonn_node.evaluation.questions import EvidenceInterval, Expected, Tolerance
from salmonn_node.lab.world.layout import ROOMS
from salmonn_node.lab.world.objects import COLOURS, PERSON, SHAPES, Thing
from salmonn_node.lab.world.sounds import DIGITS, SOUNDS, SPOKEN
from salmonn_node.lab.world.truth import START_NS, Episode, Index, SoundTruth, Truth, frames_between
from salmonn_node.stream.observations import SECOND_NS

THING_WORDS = (*COLOURS, *SHAPES, PERSON)
SETTLE_S = 4  # a glimpse this close to a clear look does not make "last" or "first" ambiguous
OBJECT_TOLERANCE_M = 1.0  # tighter than for robot positions: things are 1.6 m in front of it
UNITS = {"knock": "knocks", "beep": "beeps", "bark": "barks"}


@dataclass(frozen=True)
class Query:
    """A question without its wording.

    Attributes:
        kind: one of `replay.questions.KINDS`.
        template: key of `phrasings.TEMPLATES`.
        words: values of the template.
        answer_type: name of the answer type.
        expected: the right answer. None if unanswerable.
        evidence: pieces of evidence, of which any one is enough unless `needs_all`.
        choices: choices of a CHOICE question.
        near_miss: if unanswerable, what was there instead.
        pixels: largest share of the picture that the evidence filled.
        snr_db: signal-to-noise ratio of the sound.
        needs_all: all pieces of evidence are needed.
        tolerance: maximum error of a right answer.
    """

    kind: str
    template: str
    words: dict[str, str]
    answer_type: str
    expected: Expected | None = None
    evidence: tuple[EvidenceInterval, ...] = ()
    choices: tuple[str, ...] = ()
    near_miss: str = ""
    pixels: float = 0.0
    snr_db: float | None = None
    needs_all: bool = False
    tolerance: Tolerance = field(default_factory=Tolerance)


def _ns(seconds: float) -> int:
    return START_NS + round(seconds * 1000) * (SECOND_NS // 1000)


def _sight(episode: Episode) -> EvidenceInterval:
    return EvidenceInterval(start_ns=episode.interval.start_ns, end_ns=episode.interval.end_ns)


def _sound(sound: SoundTruth) -> EvidenceInterval:
    return EvidenceInterval(start_ns=_ns(sound.start_s), end_ns=_ns(sound.end_s), modality="audio")


def _glance(seconds: list[int]) -> EvidenceInterval:
    return EvidenceInterval(start_ns=_ns(seconds[0]), end_ns=_ns(seconds[-1]))


def _point(x: float, y: float, z: float) -> tuple[float, float, float]:
    return round(x, 3), round(y, 3), round(z, 3)


def _title(name: str) -> str:
    return SOUNDS[name].title


def unseen_things(ix: Index, every: list[Thing]) -> Iterator[tuple[Thing, str]]:
    """Yield things that were in no picture, near misses first: (thing, what was seen instead)."""
    seen = sorted(ix.episodes)
    rest = []
    for thing in every:
        if thing in ix.glimpses:
            continue
        shape = next((s for s in seen if s.shape == thing.shape), None)
        colour = next((s for s in seen if s.colour == thing.colour and s.shape != PERSON), None)
        if shape:
            yield thing, f"same shape, other colour: {shape.name}"
        elif colour:
            yield thing, f"same colour, other shape: {colour.name}"
        else:
            rest.append((thing, "nothing like it"))
    yield from rest


def unheard_sounds(ix: Index) -> Iterator[tuple[str, str]]:
    """Yield sounds that were not heard, not even faintly: (name, what was heard instead)."""
    heard = sorted({s.name for s in ix.sounds if s.clear})
    for name in SOUNDS:
        if not any(s.name == name and (s.clear or s.faint) for s in ix.sounds):
            alike = [h for h in heard if (h in SPOKEN) == (name in SPOKEN)]
            yield name, f"another sound: {alike[0]}" if alike else "no such sound"


def _certain_last(ix: Index, episode: Episode) -> bool:
    return ix.glimpses[episode.thing][-1] <= episode.last + SETTLE_S


def _certain_first(ix: Index, episode: Episode) -> bool:
    return ix.glimpses[episode.thing][0] >= episode.first - SETTLE_S


def about_things(ix: Index, every: list[Thing]) -> Iterator[Query]:
    """Queries about things and people: existence, position, room, time and duration."""
    for thing, episodes in sorted(ix.episodes.items()):
        words = {"thing": thing.name}
        first, last = episodes[0], episodes[-1]
        seen = tuple(_sight(e) for e in episodes)
        share = max(e.share for e in episodes)
        yield Query(
            "existence", "existence_thing", words, "BINARY", Expected(text="yes", binary=True), seen, pixels=share
        )
        if _certain_first(ix, first):
            when = Expected(event_start_ns=first.interval.start_ns, event_end_ns=first.interval.end_ns)
            yield Query("when_first", "when_first_thing", words, "TIME", when, (seen[0],), pixels=first.share)
        if not _certain_last(ix, last):
            continue
        here = (seen[-1],)
        when = Expected(event_start_ns=last.interval.start_ns, event_end_ns=last.interval.end_ns)
        yield Query("when_last", "when_last_thing", words, "TIME", when, here, pixels=last.share)
        spot = Expected(position_m=_point(*last.position), pose_kind="OBJECT", text=last.room)
        near = Tolerance(position_m=OBJECT_TOLERANCE_M)
        yield Query("where_object", "where_object", words, "POSITION", spot, here, pixels=last.share, tolerance=near)
        own = Expected(position_m=_point(last.observer.x, last.observer.y, 0.0), text=last.room)
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


def about_sounds(ix: Index, truth: Truth) -> Iterator[Query]:
    """Queries about sounds: existence, count, position, time, duration, and what was seen at the same time."""
    for name in sorted({s.name for s in ix.sounds if s.clear}):
        words = {"sound": _title(name)}
        heard = ix.heard(name)
        first, last = heard[0], heard[-1]
        loud = max(s.snr_db for s in heard)
        every = tuple(_sound(s) for s in heard)
        yes = Expected(text="yes", binary=True)
        yield Query("existence", "existence_sound", words, "BINARY", yes, every, snr_db=loud)
        if ix.unsure(name):
            continue
        here = (every[-1],)
        when = Expected(event_start_ns=every[0].start_ns, event_end_ns=every[0].end_ns)
        yield Query("when_first", "when_first_sound", words, "TIME", when, (every[0],), snr_db=first.snr_db)
        when = Expected(event_start_ns=here[0].start_ns, event_end_ns=here[0].end_ns)
        yield Query("when_last", "when_last_sound", words, "TIME", when, here, snr_db=last.snr_db)
        frames = frames_between(truth, last.start_s, last.end_s)
        pose = frames[0].pose
        if max(abs(f.pose.x - pose.x) + abs(f.pose.y - pose.y) for f in frames) < 1.0:
            own = Expected(position_m=_point(pose.x, pose.y, 0.0), text=frames[0].room)
            yield Query("where_robot", "where_robot_sound", words, "POSITION", own, here, snr_db=last.snr_db)
        if SOUNDS[name].lasts:
            long = Expected(duration_s=round(last.end_s - last.start_s, 2))
            yield Query("how_long", "how_long_sound", words, "DURATION", long, here, snr_db=last.snr_db)
        if name in UNITS:
            count = Expected(count=last.repeats)
            unit = words | {"units": UNITS[name]}
            yield Query("count", "count_sound", unit, "COUNT", count, here, snr_db=last.snr_db)
        # At least two seconds of frames around the sound, all with the same single thing.
        view = frames_between(truth, last.start_s - 0.5, max(last.end_s, last.start_s + 1.0))
        things = [{s.thing for s in m.seen} for m in view]
        if len(view) >= 2 and len(things[0]) == 1 and all(t == things[0] for t in things) and _all_clear(view):
            (thing,) = things[0]
            what = Expected(text=thing.name, vocabulary=THING_WORDS)
            share = max(s.share for m in view for s in m.seen)
            both = (*here, EvidenceInterval(start_ns=view[0].stamp_ns, end_ns=view[-1].stamp_ns))
            yield Query("seen_when_heard", "seen_when_heard", words, "TEXT", what, both, pixels=share,
                        snr_db=last.snr_db)  # fmt: skip
        elif len(view) >= 2 and not any(things):
            miss = "the sound was heard, but nothing was in view"
            yield Query("seen_when_heard", "seen_when_heard", words, "TEXT", near_miss=miss)
    for name, instead in unheard_sounds(ix):
        words = {"sound": _title(name)}
        for kind, template, answer_type in (
            ("existence", "existence_sound", "BINARY"),
            ("when_first", "when_first_sound", "TIME"),
            ("when_last", "when_last_sound", "TIME"),
            ("where_robot", "where_robot_sound", "POSITION"),
            ("seen_when_heard", "seen_when_heard", "TEXT"),
        ):
            yield Query(kind, template, words, answer_type, near_miss=instead)
        if SOUNDS[name].lasts:
            yield Query("how_long", "how_long_sound", words, "DURATION", near_miss=instead)
        if name in UNITS:
            unit = words | {"units": UNITS[name]}
            yield Query("count", "count_sound", unit, "COUNT", near_miss=instead)


def _all_clear(view: object) -> bool:
    return all(s.clear for m in view for s in m.seen)  # type: ignore[attr-defined]


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
                seen = tuple(_sight(e) for e in ix.episodes[thing] if e.room == room)
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
                seen = tuple(_sight(ix.episodes[t][-1]) for t in clear)
                share = min(max(e.share for e in ix.episodes[t]) for t in clear)
                yield Query("count", "count_things", words, "COUNT", Expected(count=len(clear)), seen, pixels=share,
                            needs_all=True)  # fmt: skip
            else:
                yield Query("count", "count_things", words, "COUNT", near_miss="other shapes only")


def about_speech(ix: Index, every: list[Thing]) -> Iterator[Query]:
    """Queries about the last digit, and about words said in front of a thing."""
    spoken = [s for s in ix.sounds if s.name in SPOKEN and (s.clear or s.faint)]
    digits = [s for s in spoken if s.name.startswith("digit_")]
    if digits and digits[-1].clear:
        what = Expected(text=SPOKEN[digits[-1].name], accepted=(str(DIGITS.index(SPOKEN[digits[-1].name])),),
                        vocabulary=DIGITS)  # fmt: skip
        yield Query(
            "what_was_said", "said_last_digit", {}, "TEXT", what, (_sound(digits[-1]),), snr_db=digits[-1].snr_db
        )
    elif not digits:
        yield Query("what_was_said", "said_last_digit", {}, "TEXT", near_miss="words only" if spoken else "no speech")
    for thing, episodes in sorted(ix.episodes.items()):
        near = [(e, s) for e in episodes for s in spoken if s.start_s < e.last + 2 and s.end_s > e.first - 2]
        sure = [(e, s) for e, s in near if s.clear and s.start_s >= e.first and s.end_s <= e.last + 0.5]
        words = {"thing": thing.name}
        if len(near) == 1 and len(sure) == 1:
            episode, sound = sure[0]
            what = Expected(text=SPOKEN[sound.name], vocabulary=tuple(SPOKEN.values()))
            evidence = (_sound(sound), _sight(episode))
            yield Query("what_was_said", "said_while_seeing", words, "TEXT", what, evidence, pixels=episode.share,
                        snr_db=sound.snr_db)  # fmt: skip
        elif not near and _certain_last(ix, episodes[-1]) and _certain_first(ix, episodes[0]):
            yield Query("what_was_said", "said_while_seeing", words, "TEXT", near_miss="same thing, but no speech")
    for thing, instead in unseen_things(ix, every):
        yield Query("what_was_said", "said_while_seeing", {"thing": thing.name}, "TEXT", near_miss=instead)


def about_order(ix: Index, every: list[Thing]) -> Iterator[Query]:
    """Queries about which of two came first. Unanswerable if one of them never came."""
    names = [n for n in sorted({s.name for s in ix.sounds if s.clear}) if not ix.unsure(n)]
    firsts = [(ix.heard(n)[0].start_s, _title(n), _sound(ix.heard(n)[0]), ix.heard(n)[0].snr_db) for n in names]
    yield from _pairs("order_sounds", sorted(firsts), 2.0, heard=True)
    things = [es[0] for _, es in sorted(ix.episodes.items()) if _certain_first(ix, es[0])]
    sights = [(float(e.first), e.thing.name, _sight(e), e.share) for e in things]
    yield from _pairs("order_things", sorted(sights), SETTLE_S + 1.0, heard=False)
    for known, (missing, instead) in zip(sights, unseen_things(ix, every), strict=False):
        yield _missing_pair("order_things", known[1], missing.name, instead)
    for known, (name, instead) in zip(firsts, unheard_sounds(ix), strict=False):
        yield _missing_pair("order_sounds", known[1], _title(name), instead)


def _missing_pair(template: str, a: str, b: str, instead: str) -> Query:
    a, b = sorted((a, b))
    return Query("order", template, {"a": a, "b": b}, "CHOICE", choices=(a, b), near_miss=instead)


def _pairs(template: str, rows: list[tuple[float, str, EvidenceInterval, float]], apart_s: float, heard: bool
           ) -> Iterator[Query]:  # fmt: skip
    for i, (start, name, evidence, strength) in enumerate(rows):
        for later, other, second, weaker in rows[i + 1 :]:
            if later - start < apart_s:
                continue
            a, b = sorted((name, other))
            expected = Expected(text=name, choice_index=(a, b).index(name))
            weak = min(strength, weaker)
            yield Query("order", template, {"a": a, "b": b}, "CHOICE", expected, (evidence, second), (a, b),
                        pixels=0.0 if heard else weak, snr_db=weak if heard else None, needs_all=True)  # fmt: skip


def _runs(looks: list[tuple[int, object]]) -> list[list[tuple[int, object]]]:
    """Split the looks at one spot at gaps of two seconds or more."""
    runs: list[list[tuple[int, object]]] = []
    for look in looks:
        if runs and look[0] - runs[-1][-1][0] <= 2:
            runs[-1].append(look)
        else:
            runs.append([look])
    return [r for r in runs if len(r) >= 2]


def about_states(ix: Index) -> Iterator[Query]:
    """Queries about doors now and at first, and whether things are still in their place."""
    choices = ("open", "shut")
    for room in ROOMS:
        words = {"room": room}
        name = f"{room}/door"
        if name not in ix.looks:
            doors = sorted(s.split("/")[0] for s in ix.looks if s.endswith("/door"))
            miss = f"another door: {doors[0]}" if doors else "no door"
            if not any(r == room for r, _, _ in ix.stays):
                yield Query("state_now", "door_now", words, "CHOICE", choices=choices, near_miss=miss)
                yield Query("state_earlier", "door_earlier", words, "CHOICE", choices=choices, near_miss=miss)
            continue
        runs = _runs(ix.looks[name])
        for kind, template, position in (("state_now", "door_now", -1), ("state_earlier", "door_earlier", 0)):
            # The first or last look must be part of a run in plain view with a single state.
            if not runs or runs[position][position] != ix.looks[name][position]:
                continue
            run = runs[position]
            if len({state for _, state in run}) == 1:
                state = 0 if run[0][1] else 1
                expected = Expected(text=choices[state], choice_index=state)
                yield Query(kind, template, words, "CHOICE", expected, (_glance([s for s, _ in run]),), choices,
                            pixels=0.2)  # fmt: skip
    for thing, episodes in sorted(ix.episodes.items()):
        first = episodes[0]
        looks = ix.looks.get(first.spot, [])
        if thing.shape == PERSON or not _certain_first(ix, first) or not looks or looks[-1][0] <= first.last + 10:
            continue
        runs = _runs(looks)
        if not runs or runs[-1][-1] != looks[-1] or len({s for _, s in runs[-1]}) != 1:
            continue
        still = runs[-1][-1][1] == thing
        expected = Expected(text="yes" if still else "no", binary=still)
        evidence = (_sight(first), _glance([s for s, _ in runs[-1]]))
        yield Query("state_now", "still_there", {"thing": thing.name}, "BINARY", expected, evidence, pixels=first.share,
                    needs_all=True)  # fmt: skip


def about_changes(ix: Index) -> Iterator[Query]:
    """Queries about what appeared in or disappeared from a room between the robot's last two looks at its stands."""
    for room in sorted({r for r, _, _ in ix.stays}):
        visits = [(a, b) for r, a, b in ix.stays if r == room and b < ix.now - 1]
        visits = [(a, b) for a, b in visits if any(
            s.startswith(f"{room}/") and any(a <= t <= b for t, _ in looks) for s, looks in ix.looks.items()
        )]  # fmt: skip
        words = {"room": room}
        if len(visits) < 2:
            for template in ("appeared", "gone"):
                yield Query("change", template, words, "TEXT", near_miss="visited once only")
            continue
        before, after = visits[-2], visits[-1]
        new, gone, sure = [], [], True
        for spot, looks in ix.looks.items():
            if not spot.startswith(f"{room}/") or spot.endswith("/door"):
                continue
            then = [(t, s) for t, s in looks if before[0] <= t <= before[1]]
            now = [(t, s) for t, s in looks if after[0] <= t <= after[1]]
            if not then and not now:
                continue
            sure &= (
                len(then) >= 2 and len(now) >= 2 and len({s for _, s in then}) == 1 and len({s for _, s in now}) == 1
            )
            if not sure:
                break
            a, b = then[-1][1], now[-1][1]
            if a != b:
                glance = tuple(_glance([t for t, _ in max(_runs(x), key=len, default=x)]) for x in (then, now))
                new += [(b, glance)] if b is not None else []
                gone += [(a, glance)] if a is not None else []
        if not sure:
            continue
        moved_within = {t for t, _ in new} & {t for t, _ in gone}
        for template, found in (("appeared", new), ("gone", gone)):
            if moved_within or len(found) > 1:
                continue
            if not found:
                yield Query("change", template, words, "TEXT", near_miss="nothing changed there")
                continue
            thing, evidence = found[0]
            expected = Expected(text=thing.name, vocabulary=THING_WORDS)  # type: ignore[union-attr]
            shares = [e.share for e in ix.episodes.get(thing, [])]  # type: ignore[arg-type]
            if shares:
                yield Query("change", template, words, "TEXT", expected, evidence, pixels=max(shares),
                            needs_all=True)  # fmt: skip


def all_queries(ix: Index, truth: Truth, every: list[Thing]) -> Iterator[Query]:
    """Yield all queries at the moment of the index, answerable or not."""
    parts: tuple[Callable[[], Iterator[Query]], ...] = (
        lambda: about_things(ix, every),
        lambda: about_sounds(ix, truth),
        lambda: about_colours(ix),
        lambda: about_speech(ix, every),
        lambda: about_order(ix, every),
        lambda: about_states(ix),
        lambda: about_changes(ix),
    )
    for part in parts:
        yield from part()
