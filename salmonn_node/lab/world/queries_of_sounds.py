"""Queries about sounds and speech: when, how often, how long, and what was seen meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

from salmonn_node.evaluation.questions import EvidenceInterval, Expected
from salmonn_node.lab.world.objects import Thing
from salmonn_node.lab.world.query import (
    THING_WORDS,
    Query,
    certain_first,
    certain_last,
    heard_at,
    point,
    sight,
    title,
    unheard_sounds,
    unseen_things,
)
from salmonn_node.lab.world.sounds import DIGITS, SOUNDS, SPOKEN
from salmonn_node.lab.world.truth import Index, Truth, frames_between

UNITS = {"knock": "knocks", "beep": "beeps", "bark": "barks"}


def about_sounds(ix: Index, truth: Truth) -> Iterator[Query]:
    """Queries about sounds: existence, count, position, time, duration, and what was seen at the same time."""
    for name in sorted({s.name for s in ix.sounds if s.clear}):
        words = {"sound": title(name)}
        heard = ix.heard(name)
        first, last = heard[0], heard[-1]
        loud = max(s.snr_db for s in heard)
        every = tuple(heard_at(s) for s in heard)
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
            own = Expected(position_m=point(pose.x, pose.y, 0.0), text=frames[0].room)
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
        words = {"sound": title(name)}
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


def about_speech(ix: Index, every: list[Thing]) -> Iterator[Query]:
    """Queries about the last digit, and about words said in front of a thing."""
    spoken = [s for s in ix.sounds if s.name in SPOKEN and (s.clear or s.faint)]
    digits = [s for s in spoken if s.name.startswith("digit_")]
    if digits and digits[-1].clear:
        what = Expected(text=SPOKEN[digits[-1].name], accepted=(str(DIGITS.index(SPOKEN[digits[-1].name])),),
                        vocabulary=DIGITS)  # fmt: skip
        yield Query(
            "what_was_said", "said_last_digit", {}, "TEXT", what, (heard_at(digits[-1]),), snr_db=digits[-1].snr_db
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
            evidence = (heard_at(sound), sight(episode))
            yield Query("what_was_said", "said_while_seeing", words, "TEXT", what, evidence, pixels=episode.share,
                        snr_db=sound.snr_db)  # fmt: skip
        elif not near and certain_last(ix, episodes[-1]) and certain_first(ix, episodes[0]):
            yield Query("what_was_said", "said_while_seeing", words, "TEXT", near_miss="same thing, but no speech")
    for thing, instead in unseen_things(ix, every):
        yield Query("what_was_said", "said_while_seeing", {"thing": thing.name}, "TEXT", near_miss=instead)
