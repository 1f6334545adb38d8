"""What appeared in a room, or was gone from it, between the last two visits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from answering.named_events import sight

from salmonn_node.answering.event_changes import appeared, gone, visits
from salmonn_node.answering.event_reader import EventReading, Finding
from salmonn_node.memory.event_names import EventNames
from salmonn_node.memory.events import Event
from salmonn_node.model.checkpoint import load
from salmonn_node.stream.observations import SECOND_NS

KITCHEN = {"room": "kitchen"}


@pytest.fixture(scope="module")
def names() -> EventNames:
    parts = load().event_parts
    assert parts is not None
    return parts.names


@pytest.fixture
def seen(names: EventNames) -> list[Event]:
    """Two visits to the kitchen: a ball went, a star came, a cube stayed."""
    return [
        sight(names, "blue", "cube", 0, 9, "kitchen"),
        sight(names, "red", "ball", 10, 16, "kitchen"),
        sight(names, "green", "cone", 60, 66, "office"),
        sight(names, "blue", "cube", 100, 109, "kitchen"),
        sight(names, "white", "star", 110, 117, "kitchen"),
        sight(names, "green", "cone", 160, 166, "office"),
    ]


def numbered(sights: list[Event], *dropped: int) -> list[Event]:
    """The same sights as runs that followed one another; those dropped left a gap."""
    whole = [replace(e, number=n) for n, e in enumerate(sorted(sights, key=lambda e: e.first_ns))]
    return [e for e in whole if e.number not in dropped]


def both(names: EventNames, sights: list[Event], now_s: int = 400) -> list[str]:
    reading = EventReading(names, numbered(sights), [], now_s * SECOND_NS)
    return [read(reading, KITCHEN).text for read in (appeared, gone)]


def test_what_came_and_what_went_are_told_with_the_place_on_both_visits(names, seen):
    reading = EventReading(names, numbered(seen), [], 400 * SECOND_NS)
    new, missing = appeared(reading, KITCHEN), gone(reading, KITCHEN)
    assert (new.text, missing.text) == ("white star", "red ball")
    assert [e.first_ns // SECOND_NS for e in new.events] == [110, 0]
    assert [e.first_ns // SECOND_NS for e in missing.events] == [10, 100]
    assert 0.7 < missing.probability < new.probability < 0.9


def test_visits_are_told_apart_by_other_rooms_and_by_long_gaps(names, seen):
    reading = EventReading(names, seen, [])
    found = [
        (names.labels["room"][v.room], v.first_ns // SECOND_NS, [reading.sights.index(e) for e in v.sights])
        for v in visits(reading)
    ]
    assert found == [
        ("kitchen", 0, [0, 1]),
        ("office", 60, [2]),
        ("kitchen", 100, [3, 4]),
        ("office", 160, [5]),
    ]
    apart = [sight(names, "red", "ball", 10, 16, "kitchen"), sight(names, "red", "ball", 100, 109, "kitchen")]
    assert len(visits(EventReading(names, apart, []))) == 2


def test_a_visit_that_goes_on_is_not_the_last_one(names, seen):
    now = [*seen, sight(names, "orange", "ring", 200, 206, "kitchen")]
    assert both(names, now, 210) == ["white star", "red ball"]
    assert both(names, now, 300)[0] == "orange ring"


def test_what_was_there_before_the_visit_before_is_not_new(names, seen):
    assert both(names, [sight(names, "white", "star", -90, -80, "kitchen"), *seen])[0] == ""


@pytest.mark.parametrize("more", ["two came", "one visit", "never there"])
def test_what_cannot_be_told_is_not_observed(names, seen, more):
    if more == "two came":
        seen.insert(5, sight(names, "orange", "ring", 118, 125, "kitchen"))
        assert both(names, seen) == ["", "red ball"]
    elif more == "one visit":
        assert both(names, seen[:3]) == ["", ""]
    else:
        assert both(names, [e for e in seen if e.first_ns in (60 * SECOND_NS, 160 * SECOND_NS)]) == ["", ""]
    assert appeared(EventReading(names, [], []), KITCHEN) == Finding()


def test_where_sights_between_the_visits_were_dropped_nothing_can_be_told(names, seen):
    more = [sight(names, "green", "cone", 60 + n, 60 + n, "office") for n in range(7)]
    whole = numbered([*seen, *more])
    few = numbered([*seen, *more], *range(2, 9))
    assert [appeared(EventReading(names, kept, []), KITCHEN).text for kept in (whole, few)] == ["white star", ""]


def test_people_are_neither_put_nor_taken(names, seen):
    assert both(names, [*seen[:5], sight(names, "red", "person", 126, 134, "kitchen"), seen[5]])[0] == "white star"
