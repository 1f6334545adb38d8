"""Phrasings: several question templates per query. The last one of each is held out from training."""

from __future__ import annotations

import re

import numpy as np

# query -> templates; {thing} is "red ball" or "person in red", {sound} is "the doorbell", {room}, {shape}, {shapes}
TEMPLATES: dict[str, tuple[str, ...]] = {
    "existence_thing": (
        "Have you seen a {thing}?",
        "Was there a {thing}?",
        "Did you see a {thing} anywhere?",
        "Is there any {thing} that you came across?",
    ),
    "existence_sound": (
        "Have you heard {sound}?",
        "Did you hear {sound}?",
        "Was {sound} to be heard?",
        "Did {sound} reach your microphone?",
    ),
    "colour": (
        "What colour was the {shape} in the {room}?",
        "Which colour did the {shape} in the {room} have?",
        "What was the colour of the {shape} you saw in the {room}?",
        "The {shape} in the {room}: what colour was it?",
    ),
    "count_sound": (
        "How many {units} were there when you last heard {sound}?",
        "When you last heard {sound}, how many {units} were there?",
        "How many {units} did you hear last time?",
        "Last time there was {sound}: how many {units}?",
    ),
    "count_things": (
        "How many different {shapes} have you seen?",
        "How many {shapes} of different colours did you see?",
        "Count the different {shapes} you have seen.",
        "In all, how many {shapes} did you come across?",
    ),
    "where_robot_sound": (
        "Where were you when you last heard {sound}?",
        "At which position did you last hear {sound}?",
        "Where did you stand when {sound} was last heard?",
        "Your own position when you last heard {sound}?",
    ),
    "where_robot_thing": (
        "Where were you when you last saw the {thing}?",
        "From which position did you last see the {thing}?",
        "Where did you stand when you last saw the {thing}?",
        "Your own position when you last saw the {thing}?",
    ),
    "where_object": (
        "Where is the {thing}?",
        "Where did the {thing} stand when you last saw it?",
        "At which position was the {thing} last?",
        "Give the last known position of the {thing}.",
    ),
    "room": (
        "In which room did you last see the {thing}?",
        "Which room was the {thing} in?",
        "What room did you last see the {thing} in?",
        "Name the room in which the {thing} was last.",
    ),
    "when_first_thing": (
        "When did you first see the {thing}?",
        "At what time did you see the {thing} for the first time?",
        "When was the {thing} first seen?",
        "Since when do you know of the {thing}?",
    ),
    "when_first_sound": (
        "When did you first hear {sound}?",
        "At what time did you hear {sound} for the first time?",
        "When was {sound} first heard?",
        "The first time you heard {sound}: when was that?",
    ),
    "when_last_thing": (
        "When did you last see the {thing}?",
        "At what time did you see the {thing} for the last time?",
        "When was the {thing} last seen?",
        "The most recent sight of the {thing}: when was that?",
    ),
    "when_last_sound": (
        "When did you last hear {sound}?",
        "At what time did you hear {sound} for the last time?",
        "When was {sound} last heard?",
        "The most recent time you heard {sound}: when was that?",
    ),
    "how_long_sound": (
        "For how long did you hear {sound} last time?",
        "How long did {sound} last?",
        "How many seconds did {sound} go on?",
        "What was the duration of {sound}?",
    ),
    "how_long_thing": (
        "For how long did you look at the {thing} last time?",
        "How long did you last see the {thing}?",
        "How many seconds did you see the {thing} last time?",
        "What was the duration of your last look at the {thing}?",
    ),
    "seen_when_heard": (
        "What did you see when you last heard {sound}?",
        "Which object was in view when you last heard {sound}?",
        "What stood before you when {sound} was last heard?",
        "While there was {sound}, what were you looking at?",
    ),
    "said_while_seeing": (
        "What was said while you looked at the {thing}?",
        "Which word did you hear while you saw the {thing}?",
        "What did you hear someone say in front of the {thing}?",
        "As you were looking at the {thing}, what was said?",
    ),
    "said_last_digit": (
        "What was the last digit you heard?",
        "Which digit was spoken last?",
        "What digit did you hear last?",
        "The most recently spoken digit: what was it?",
    ),
    "order_sounds": (
        "Which did you hear first, {a} or {b}?",
        "What came first, {a} or {b}?",
        "Did you hear {a} or {b} first?",
        "Of {a} and {b}, which was the earlier?",
    ),
    "order_things": (
        "Which did you see first, the {a} or the {b}?",
        "What came into view first, the {a} or the {b}?",
        "Did you see the {a} or the {b} first?",
        "Of the {a} and the {b}, which did you see earlier?",
    ),
    "door_now": (
        "Is the {room} door open or shut?",
        "Was the {room} door open or shut when you last saw it?",
        "In what state is the door in the {room}, open or shut?",
        "How did you last find the {room} door, open or shut?",
    ),
    "door_earlier": (
        "Was the {room} door open or shut when you first saw it?",
        "At first, was the {room} door open or shut?",
        "In what state was the door in the {room} at the beginning, open or shut?",
        "How did you first find the {room} door, open or shut?",
    ),
    "still_there": (
        "Is the {thing} still where you first saw it?",
        "Does the {thing} still stand where you first saw it?",
        "Has the {thing} stayed where you first saw it?",
        "Is the {thing} unmoved since you first saw it?",
    ),
    "appeared": (
        "What was new in the {room} on your last visit?",
        "What appeared in the {room} while you were away?",
        "Which object had been put in the {room} between your last two visits?",
        "Since your visit before, what had been added in the {room}?",
    ),
    "gone": (
        "What was gone from the {room} on your last visit?",
        "What disappeared from the {room} while you were away?",
        "Which object had been taken from the {room} between your last two visits?",
        "Since your visit before, what was missing in the {room}?",
    ),
}


def phrase(query: str, held_out: bool, rng: np.random.Generator, **words: str) -> tuple[str, str]:
    """Return (question, template name). Held-out worlds use the held-out template half of the time."""
    templates = TEMPLATES[query]
    last = len(templates) - 1
    number = last if held_out and rng.random() < 0.5 else int(rng.integers(last))
    name = f"{'held_out:' if number == last else ''}{query}:{number}"
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", templates[number].format(**words)), name
