"""Queries about the order of things, the state of doors and stands, and what has changed in a room."""

from __future__ import annotations

from collections.abc import Iterator

from salmonn_node.evaluation.questions import EvidenceInterval, Expected
from salmonn_node.lab.world.layout import ROOMS
from salmonn_node.lab.world.objects import PERSON, Thing
from salmonn_node.lab.world.query import (
    SETTLE_S,
    THING_WORDS,
    Query,
    certain_first,
    glance,
    heard_at,
    sight,
    title,
    unheard_sounds,
    unseen_things,
)
from salmonn_node.lab.world.truth import Index


def about_order(ix: Index, every: list[Thing]) -> Iterator[Query]:
    """Queries about which of two came first. Unanswerable if one of them never came."""
    names = [n for n in sorted({s.name for s in ix.sounds if s.clear}) if not ix.unsure(n)]
    firsts = [(ix.heard(n)[0].start_s, title(n), heard_at(ix.heard(n)[0]), ix.heard(n)[0].snr_db) for n in names]
    yield from _pairs("order_sounds", sorted(firsts), 2.0, heard=True)
    things = [es[0] for _, es in sorted(ix.episodes.items()) if certain_first(ix, es[0])]
    sights = [(float(e.first), e.thing.name, sight(e), e.share) for e in things]
    yield from _pairs("order_things", sorted(sights), SETTLE_S + 1.0, heard=False)
    for known, (missing, instead) in zip(sights, unseen_things(ix, every), strict=False):
        yield _missing_pair("order_things", known[1], missing.name, instead)
    for known, (name, instead) in zip(firsts, unheard_sounds(ix), strict=False):
        yield _missing_pair("order_sounds", known[1], title(name), instead)


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
                yield Query(kind, template, words, "CHOICE", expected, (glance([s for s, _ in run]),), choices,
                            pixels=0.2)  # fmt: skip
    for thing, episodes in sorted(ix.episodes.items()):
        first = episodes[0]
        looks = ix.looks.get(first.spot, [])
        if thing.shape == PERSON or not certain_first(ix, first) or not looks or looks[-1][0] <= first.last + 10:
            continue
        runs = _runs(looks)
        if not runs or runs[-1][-1] != looks[-1] or len({s for _, s in runs[-1]}) != 1:
            continue
        still = runs[-1][-1][1] == thing
        expected = Expected(text="yes" if still else "no", binary=still)
        evidence = (sight(first), glance([s for s, _ in runs[-1]]))
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
                glances = tuple(glance([t for t, _ in max(_runs(x), key=len, default=x)]) for x in (then, now))
                new += [(b, glances)] if b is not None else []
                gone += [(a, glances)] if a is not None else []
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
