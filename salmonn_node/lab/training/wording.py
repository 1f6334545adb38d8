"""Rewording: other words for the same question, so that training does not only use the world's few templates.

None of them is one of the world's held-out wordings.
"""

from __future__ import annotations

import re

import numpy as np

from salmonn_node.lab.world.phrasings import TEMPLATES

OTHER: dict[str, tuple[str, ...]] = {
    "existence_thing": (
        "Did a {thing} come into view?",
        "Have you ever noticed a {thing}?",
        "Do you remember a {thing}?",
        "Tell me whether you have seen a {thing}.",
        "Was a {thing} in the picture at any time?",
        "A {thing}: did you see one?",
        "Has there been a {thing} so far?",
        "Did you come past a {thing}?",
    ),
    "existence_sound": (
        "Has {sound} been heard?",
        "Do you remember hearing {sound}?",
        "Tell me whether you heard {sound}.",
        "Could {sound} be heard at any time?",
        "Was there {sound} at some point?",
        "Did the microphone pick up {sound}?",
        "{sound}: did you hear it?",
        "Has there been {sound}?",
    ),
    "colour": (
        "Tell me the colour of the {shape} in the {room}.",
        "In the {room} there was a {shape}. Which colour?",
        "What colour is the {shape} that stands in the {room}?",
        "You saw a {shape} in the {room}; what colour did it have?",
        "Name the colour of the {shape} from the {room}.",
        "Of which colour was the {room}'s {shape}?",
        "{shape} in the {room}: which colour?",
        "How was the {shape} in the {room} coloured?",
    ),
    "count_sound": (
        "How many {units} did the last {sound} have?",
        "Count the {units} of the last time you heard {sound}.",
        "The last {sound}: how many {units} was it?",
        "Tell me how many {units} you heard last.",
        "How many {units} did you count when {sound} was last heard?",
        "What was the number of {units} last time?",
        "Number of {units} when you last heard {sound}?",
        "At the last {sound}, how many {units} did it make?",
        "Think of the last {sound}: what number of {units}?",
    ),
    "count_things": (
        "How many {shapes} are there?",
        "Tell me how many different {shapes} you saw.",
        "What is the number of different {shapes}?",
        "How many kinds of {shapes} have been in view?",
        "{shapes}: how many different ones were there?",
        "Of how many colours were the {shapes} that you saw?",
        "How many {shapes} have you seen altogether?",
        "Number of different {shapes} so far?",
        "All together, how many different {shapes}?",
        "In the whole time, how many {shapes} were in view?",
        "Up to now, how many {shapes} have you come past?",
    ),
    "where_robot_sound": (
        "Where were you standing as you last heard {sound}?",
        "What was your position when {sound} was last to be heard?",
        "Tell me where you were at the last {sound}.",
        "In what place were you the last time there was {sound}?",
        "When you last heard {sound}, where were you?",
        "Give me your own place at the time of the last {sound}.",
        "From where did you last hear {sound}?",
    ),
    "where_robot_thing": (
        "Where were you standing as you last saw the {thing}?",
        "What was your position when the {thing} was last in view?",
        "Tell me where you were when you saw the {thing} last.",
        "In what place were you the last time you saw the {thing}?",
        "When you last saw the {thing}, where were you?",
        "Give me your own place at the last sight of the {thing}.",
        "From where have you last looked at the {thing}?",
    ),
    "where_object": (
        "Where can I find the {thing}?",
        "Tell me where the {thing} is.",
        "What is the place of the {thing}?",
        "Where did you last see the {thing} standing?",
        "The {thing}: where is it?",
        "Do you know where the {thing} is?",
        "I am looking for the {thing}. Where is it?",
        "Position of the {thing}, please?",
        "What was the last position of the {thing}?",
        "Say where the {thing} was when you knew it last.",
    ),
    "room": (
        "Tell me the room of the {thing}.",
        "What was the room where you saw the {thing}?",
        "In what room is the {thing}?",
        "Where, in which room, was the {thing} seen last?",
        "The {thing}: which room was it in?",
        "Say in which room the {thing} stands.",
        "Which room did you last find the {thing} in?",
    ),
    "when_first_thing": (
        "Tell me when you saw the {thing} first.",
        "When did the {thing} come into view for the first time?",
        "What was the time of your first look at the {thing}?",
        "The {thing}: when did you see it first?",
        "The earliest time you saw the {thing}?",
        "When have you first noticed the {thing}?",
        "How early did you see the {thing}?",
        "From when on did you know the {thing}?",
    ),
    "when_first_sound": (
        "Tell me when you heard {sound} first.",
        "When was {sound} to be heard for the first time?",
        "What was the time of the first {sound}?",
        "{sound}: when did you hear it first?",
        "The earliest time you heard {sound}?",
        "When have you first noticed {sound}?",
        "How early did you hear {sound}?",
    ),
    "when_last_thing": (
        "Tell me when you saw the {thing} last.",
        "When was the {thing} in view for the last time?",
        "What was the time of your last look at the {thing}?",
        "The {thing}: when did you see it last?",
        "The latest time you saw the {thing}?",
        "When did you see the {thing} most recently?",
        "How recently did you see the {thing}?",
        "At which time was your latest sight of the {thing}?",
    ),
    "when_last_sound": (
        "Tell me when you heard {sound} last.",
        "When was {sound} to be heard for the last time?",
        "What was the time of the last {sound}?",
        "{sound}: when did you hear it last?",
        "The latest time you heard {sound}?",
        "When did you hear {sound} most recently?",
        "How recently was there {sound}?",
    ),
    "how_long_sound": (
        "How long was {sound} to be heard?",
        "Tell me how long {sound} was.",
        "How many seconds was {sound}?",
        "{sound}: how long did it go on?",
        "What was the length of {sound} in seconds?",
        "For how many seconds was there {sound}?",
        "How long did you hear {sound} the last time?",
    ),
    "how_long_thing": (
        "How long was the {thing} in view last time?",
        "Tell me how long you looked at the {thing}.",
        "How many seconds was your last look at the {thing}?",
        "The {thing}: how long did you see it last?",
        "What was the length of your last sight of the {thing}?",
        "For how many seconds was the {thing} before you?",
        "How long did you look at the {thing} the last time?",
    ),
    "seen_when_heard": (
        "What was in view when you last heard {sound}?",
        "Tell me what you saw when there was {sound}.",
        "As {sound} was heard, what did you see?",
        "At the last {sound}, which thing was in the picture?",
        "What were you looking at when {sound} was heard last?",
        "When you heard {sound} last, what was before you?",
        "Name what you saw during {sound}.",
    ),
    "said_while_seeing": (
        "What was said in front of the {thing}?",
        "Tell me the word that was spoken when you saw the {thing}.",
        "While the {thing} was in view, what did someone say?",
        "What word was said as you looked at the {thing}?",
        "You looked at the {thing}; what did you hear then?",
        "When you saw the {thing}, which word was spoken?",
        "During your look at the {thing}, what was said?",
    ),
    "said_last_digit": (
        "Tell me the last digit that was said.",
        "Which digit was the last?",
        "What digit was last said?",
        "The last digit spoken, which was it?",
        "Of the digits you heard, which came last?",
        "Name the latest digit.",
        "What number between zero and nine was said last?",
    ),
    "order_sounds": (
        "Was {a} or {b} heard first?",
        "Tell me which came first, {a} or {b}.",
        "Which of the two was first, {a} or {b}?",
        "{a} or {b}: which did you hear earlier?",
        "Did {a} come before {b}, or {b} before {a}?",
        "What did you hear earlier, {a} or {b}?",
        "First {a} or first {b}?",
        "Between {a} and {b}, which came first?",
        "You have heard {a} and {b}: which one came earlier?",
        "Put {a} and {b} in order: which is first?",
        "{a} and {b}: which was first?",
    ),
    "order_things": (
        "Was the {a} or the {b} seen first?",
        "Tell me which you saw first, the {a} or the {b}.",
        "Which of the two was first in view, the {a} or the {b}?",
        "The {a} or the {b}: which did you see earlier?",
        "Did the {a} come before the {b}, or the {b} before the {a}?",
        "What did you see earlier, the {a} or the {b}?",
        "First the {a} or first the {b}?",
        "Between the {a} and the {b}, which came first?",
        "You have seen the {a} and the {b}: which one came earlier?",
        "Put the {a} and the {b} in order: which is first?",
        "The {a} and the {b}: which was first?",
    ),
    "door_now": (
        "Is the door in the {room} open or shut now?",
        "The {room} door: is it open or shut?",
        "Tell me whether the {room} door is open or shut.",
        "Open or shut, how is the {room} door?",
        "Did you last see the {room} door open or shut?",
        "When you saw the {room} door last, was it open or shut?",
        "How is the door of the {room}, open or shut?",
    ),
    "door_earlier": (
        "When you saw the {room} door first, was it open or shut?",
        "The first time you saw it, was the {room} door open or shut?",
        "Tell me whether the {room} door was open or shut at the beginning.",
        "Did you first see the {room} door open or shut?",
        "How was the {room} door at first, open or shut?",
        "In the beginning, open or shut: the door of the {room}?",
        "Earlier, at your first look, was the {room} door open or shut?",
    ),
    "still_there": (
        "Is the {thing} where it was at first?",
        "Does the {thing} stand in the same place as at first?",
        "Tell me whether the {thing} is still in its first place.",
        "Is the {thing} still in its place?",
        "The {thing}: is it still where it stood at first?",
        "Has nobody moved the {thing} since you first saw it?",
        "Was the {thing} still there when you last looked at its place?",
    ),
    "appeared": (
        "Tell me what was new in the {room}.",
        "What was put in the {room} before your last visit?",
        "Which thing in the {room} had not been there before?",
        "What new object did you see in the {room}?",
        "On your last visit to the {room}, what was new?",
        "Between your visits, what came into the {room}?",
        "What stood in the {room} last time that was not there before?",
    ),
    "gone": (
        "Tell me what was gone from the {room}.",
        "What was taken from the {room} before your last visit?",
        "Which thing in the {room} was no longer there?",
        "What object was missing from the {room}?",
        "On your last visit to the {room}, what was gone?",
        "Between your visits, what was taken away from the {room}?",
        "What did no longer stand in the {room} last time?",
    ),
}
KEEP = 0.3  # share of questions that keep the world's wording
GAPPY = 0.15  # share of questions with small words missing
SMALL_WORDS = "the a an did do does you was were is are of in at me tell there to be that it which what"
SMALL = frozenset(SMALL_WORDS.split())
PLAIN = 0.15  # share of questions in lower case without punctuation at the end


def _pattern(template: str) -> re.Pattern[str]:
    text = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
    seen: set[str] = set()

    def group(match: re.Match[str]) -> str:
        name = match.group(1)
        if name in seen:
            return f"(?P={name})"
        seen.add(name)
        return f"(?P<{name}>.+?)"

    text = re.sub(r"\\ ", " ", text)
    return re.compile(re.sub(r"\{(\w+)\}", group, text).replace(r" a (", r" an? (").replace(r"A (", r"An? ("))


_READERS = [(query, _pattern(t)) for query, templates in TEMPLATES.items() for t in templates]


def reworded(text: str, rng: np.random.Generator) -> str:
    """Reword a question most of the time. Questions that are not from the world stay unchanged."""
    if rng.random() >= KEEP:
        for query, pattern in _READERS:
            found = pattern.fullmatch(text)
            if found and (words := found.groupdict()) is not None:
                other = [t for t in OTHER[query] if all(name in words for name in re.findall(r"\{(\w+)\}", t))]
                if other:
                    text = other[int(rng.integers(len(other)))].format(**words)
                    text = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text[0].upper() + text[1:])
                break
    if rng.random() < GAPPY:
        text = " ".join(w for w in text.split(" ") if w not in SMALL or rng.random() >= 0.4) or text
    return text.lower().rstrip(".?") if rng.random() < PLAIN else text
