"""Answers from the events of days: what came thousands of times hides nothing new, and mistakes are not believed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from answering.named_events import key_of, sight

from salmonn_node.answering.event_reader import EventReading
from salmonn_node.answering.named_events import LONG, PRESENT
from salmonn_node.memory.event_names import EventNames
from salmonn_node.memory.events import Event
from salmonn_node.model.checkpoint import load
from salmonn_node.stream.observations import SECOND_NS

DAY_S = 86_400
RED_BALL = {"colour": "red", "shape": "ball"}


@pytest.fixture(scope="module")
def names() -> EventNames:
    parts = load().event_parts
    assert parts is not None
    return parts.names


def again(event: Event, times: float, seconds_later: int = 0) -> Event:
    """The event, for which so many like it were dropped, and so much later."""
    later = seconds_later * SECOND_NS
    return replace(event, repeats=times, first_ns=event.first_ns + later, last_ns=event.last_ns + later)


def unsure(names: EventNames, first_s: int, last_s: int) -> Event:
    """A sight of two things at once, whose name is a red ball, but hardly."""
    red, blue = (key_of(names, ("colour", c), ("shape", s)) for c, s in (("red", "ball"), ("blue", "cube")))
    colour, shape = names.labels["colour"].index("red"), names.labels["shape"].index("ball")
    for step in range(100):
        key = torch.nn.functional.normalize(red + 0.02 * step * (blue - red), dim=0)[None]
        sure = names.probabilities("colour", key)[0, colour] * names.probabilities("shape", key)[0, shape]
        if sure < PRESENT - 0.1:
            break
    assert 0.5 < sure < PRESENT
    event = sight(names, "red", "ball", first_s, last_s)
    return replace(event, key=event.weight * key[0])


def test_what_came_a_thousand_times_is_there_even_if_each_look_was_short(names: EventNames) -> None:
    short = sight(names, "red", "ball", 10, 13)
    for times in (0.0, 20.0, 1000.0, 1e6):
        assert EventReading(names, [again(short, times)], []).exists(RED_BALL).binary, times


def test_the_colour_in_a_room_is_that_of_its_newest_sights_however_often_others_came(names: EventNames) -> None:
    old = [
        again(sight(names, "blue", "ball", 10, 16, "kitchen"), 5000.0),
        again(sight(names, "white", "cube", 30, 36, "office"), 5000.0),
        again(sight(names, "yellow", "ball", 50, 56, "office"), 5000.0),
    ]
    new = [again(sight(names, "red", "ball", second, second + 6, "office"), 0.0, DAY_S) for second in (100, 200)]
    found = EventReading(names, [*old, *new], []).colour({"shape": "ball", "room": "office"})
    assert found.text == "red"
    assert found.events[0] in new
    nothing = EventReading(names, [*old, *new], []).colour({"shape": "cube", "room": "kitchen"})
    assert nothing.events == ()


def test_only_a_long_memory_doubts_an_unsure_name(names: EventNames) -> None:
    mistake, cube = unsure(names, 100, 107), sight(names, "white", "cube", 10, 16)
    young = EventReading(names, [cube, mistake], [])
    assert young.last(RED_BALL).events == (mistake,)
    old = EventReading(names, [again(cube, LONG), mistake], [])
    assert old.last(RED_BALL).events == ()
    assert old.exists({"colour": "white", "shape": "cube"}).binary


def test_a_sure_sight_outweighs_a_mistake_and_is_kept(names: EventNames) -> None:
    mistake, cube = unsure(names, 100, 107), again(sight(names, "white", "cube", 10, 16), LONG)
    real = again(sight(names, "red", "ball", 300, 306), 3.0)
    reading = EventReading(names, [cube, mistake, real], [])
    assert reading.first(RED_BALL).events == reading.last(RED_BALL).events == (real,)


def test_a_thing_whose_name_is_never_sure_is_believed_once_it_comes_often(names: EventNames) -> None:
    cube = again(sight(names, "white", "cube", 10, 16), LONG)
    mistake = unsure(names, 100, 107)
    often = [again(mistake, 0.0, second) for second in range(0, 700, 100)]
    assert EventReading(names, [cube, *often], []).first(RED_BALL).events == (often[0],)
    seldom = [again(mistake, 0.0, DAY_S * day) for day in range(7)]
    assert EventReading(names, [cube, *seldom], []).first(RED_BALL).events == ()
