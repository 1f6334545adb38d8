"""Forms of questions: how events answer each, what it needs to know, and which forms are left to the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from salmonn_node.answering.event_changes import appeared, gone
from salmonn_node.answering.event_reader import EventReading, Finding, Slots
from salmonn_node.stream.answers import AnswerType


@dataclass(frozen=True)
class Form:
    """How a form is read: the reading, the slots that it needs, and the type of its answer."""

    read: Callable[[EventReading, Slots], Finding]
    slots: tuple[str, ...]
    answer: AnswerType


_THING, _SOUND = ("colour", "shape"), ("sound",)
FORMS: dict[str, Form] = {
    "existence_thing": Form(EventReading.exists, _THING, AnswerType.BINARY),
    "existence_sound": Form(EventReading.exists, _SOUND, AnswerType.BINARY),
    "when_first_thing": Form(EventReading.first, _THING, AnswerType.TIME),
    "when_first_sound": Form(EventReading.first, _SOUND, AnswerType.TIME),
    "when_last_thing": Form(EventReading.last, _THING, AnswerType.TIME),
    "when_last_sound": Form(EventReading.last, _SOUND, AnswerType.TIME),
    "where_object": Form(EventReading.where_object, _THING, AnswerType.POSITION),
    "where_robot_thing": Form(EventReading.last, _THING, AnswerType.POSITION),
    "where_robot_sound": Form(EventReading.last, _SOUND, AnswerType.POSITION),
    "room": Form(EventReading.room, _THING, AnswerType.TEXT),
    "how_long_thing": Form(EventReading.how_long, _THING, AnswerType.DURATION),
    "how_long_sound": Form(EventReading.how_long, _SOUND, AnswerType.DURATION),
    "count_sound": Form(EventReading.count_sound, _SOUND, AnswerType.COUNT),
    "count_things": Form(EventReading.count_things, ("shape",), AnswerType.COUNT),
    "colour": Form(EventReading.colour, ("shape", "room"), AnswerType.TEXT),
    "seen_when_heard": Form(EventReading.seen_when_heard, _SOUND, AnswerType.TEXT),
    "said_while_seeing": Form(EventReading.said_while_seeing, _THING, AnswerType.TEXT),
    "said_last_digit": Form(EventReading.said_last_digit, (), AnswerType.TEXT),
    "appeared": Form(appeared, ("room",), AnswerType.TEXT),
    "gone": Form(gone, ("room",), AnswerType.TEXT),
}
# Which of two came first: what the two are stands in the choices.
ORDER = {"order_things": _THING, "order_sounds": _SOUND}
# Forms that the network answers, with the slots that they fill: a question may mean them too.
LEFT: dict[str, tuple[tuple[str, ...], AnswerType]] = {
    "door_now": (("room",), AnswerType.CHOICE),
    "door_earlier": (("room",), AnswerType.CHOICE),
    "still_there": (_THING, AnswerType.BINARY),
}


def forms_of(kind: AnswerType) -> dict[str, tuple[str, ...] | None]:
    """The forms of questions that want an answer of this type, each with the slots that it fills, None for any."""
    forms: dict[str, tuple[str, ...] | None] = {name: form.slots for name, form in FORMS.items() if form.answer == kind}
    forms |= {name: slots for name, (slots, answer) in LEFT.items() if answer == kind}
    return forms | (dict.fromkeys(ORDER) if kind == AnswerType.CHOICE else {})
