"""Texts of questions for the question head: the world's wordings with drawn words, and questions of no known form.

They need no world: a form's template and its words are drawn at random. The last wording of each template is held
out, as in all training.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from salmonn_node.lab.training.paraphrases import drawn, frames_of
from salmonn_node.lab.training.wording import GAPPY, OTHER, SMALL
from salmonn_node.lab.world.layout import ROOMS
from salmonn_node.lab.world.objects import COLOURS, PERSON, SHAPES, Thing, pairs
from salmonn_node.lab.world.phrasings import TEMPLATES
from salmonn_node.lab.world.queries_of_sounds import UNITS
from salmonn_node.lab.world.sounds import SOUNDS

FORMS = ("other", "name", *TEMPLATES)
SLOTS: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "shape": (*SHAPES, PERSON),
    "room": tuple(ROOMS),
    "sound": tuple(SOUNDS),
}
# Forms whose operands stand in the choices: their texts fill no slot.
PAIRS = ("order_things", "order_sounds")
PLURALS = {"crosses" if shape == "cross" else shape + "s": shape for shape in SHAPES}
# What the world does not have. A question about it has a form, but the slot stays empty.
STRANGE = (
    "suitcase", "chair", "mug", "cat", "laptop", "key", "green bottle", "charging station", "fire extinguisher",
    "red car", "old book", "plant", "white dog", "pallet", "forklift", "blue backpack", "box", "table", "man",
    "woman", "child", "yellow bucket", "screwdriver", "phone", "cup", "robot", "window", "lamp", "red thing",
    "object", "purple sofa", "orange", "black ball", "pink cube", "brown star", "grey cone",
)  # fmt: skip
STRANGE_SOUNDS = (
    "a car horn", "music", "a scream", "footsteps", "the radio", "a cat", "the word “apple”", "the word “yes”",
    "someone laughing", "rain", "a door slam", "the washing machine", "a siren", "my name", "a voice", "something",
    "a whistle", "the word “robot”", "the train", "a baby crying",
)  # fmt: skip
STRANGE_ROOMS = (
    "garage",
    "cellar",
    "garden",
    "corridor",
    "workshop",
    "attic",
    "lobby",
    "warehouse",
    "dining room",
    "street",
)
# Questions about things of the world that none of the forms answers.
UNLIKE = (
    "How many times did you see the {thing}?", "How often did you see the {thing}?",
    "How often did you hear {sound}?", "How many times was {sound} heard?",
    "When did you see the {thing} for the second time?", "Where was the {thing} before that?",
    "Where was the {thing} yesterday?", "What stood beside the {thing}?", "Who moved the {thing}?",
    "Why was the {thing} there?", "What is on top of the {thing}?", "How far is it to the {thing}?",
    "How big is the {thing}?", "How heavy is the {thing}?", "Is the {thing} bigger than the {other}?",
    "Is the {thing} next to the {other}?", "Which is closer, the {thing} or the {other}?",
    "Did you see the {thing} before {sound}?", "What did you hear after the {thing}?",
    "Where did you go after you saw the {thing}?", "Bring me the {thing}.", "Go to the {room}.",
    "How many doors does the {room} have?", "Were you in the {room}?", "When were you last in the {room}?",
    "How long were you in the {room}?", "How often were you in the {room}?", "Which room did you visit first?",
    "Where are you now?", "What do you see?", "What is in front of you?", "What happened?", "What time is it?",
    "Which things did you see in the {room}?", "What is in the {room}?", "How many things are in the {room}?",
    "Is anyone in the {room}?", "Was the light on in the {room}?", "Is the light on?", "Describe the {room}.",
    "Describe what you saw.", "What did you see last?", "What did you hear last?",
    "What was the first thing you saw?", "Who said {sound}?", "How loud was {sound}?", "Where did {sound} come from?",
    "Which word was said first?", "How many words were said?", "What was said in the {room}?",
    "What was said at noon?", "Did the {thing} fall?", "Did somebody take the {thing}?",
    "When will you see the {thing}?", "Which colour do you like?", "What colour is the wall of the {room}?",
    "How many {shapes} are in the {room}?", "How many red {shapes} did you see?",
    "How many {shapes} did you see before {sound}?", "Which {shape} did you see first?",
    "Which shape was in the {room}?", "Which did you see last, the {thing} or the {other}?",
    "Which did you hear last, {sound}?", "What came last, the {thing} or the {other}?",
    "What did you see before {sound}?", "What did you see after {sound}?",
    "Where was the {thing} when you heard {sound}?", "Which person did you see last?", "How many people did you see?",
    "Is the battery full?", "Are you all right?", "What is your name?", "Tell me a story.", "What should I do?",
    "Help me.", "Thank you.", "Is the {thing} broken?", "Does the {thing} belong to you?", "When was {sound} louder?",
    "Was the {thing} ever in the {room}?", "When was the {thing} in the {room}?", "When did the {room} door open?",
    "Who opened the {room} door?", "Did you open the {room} door?", "How many {shapes} were red?",
    "Which room has no {shape}?", "What was not in the {room}?", "When did you not see the {thing}?",
    "Have you not seen the {thing} since {sound}?", "the {thing} the {other}", "{room} {room}", "asdf qwer",
    "Wo liegt der rote Ball?", "Steht die Tür auf?", "Où est la balle bleue ?", "Was hast du gehört?",
    "Can you see the {thing} now?", "Is there a {thing} in the {room}?", "Is {sound} annoying?",
    "For how long was there no {sound}?", "How long ago did you start?", "When did you start?",
    "How many rooms are there?", "How many seconds are there in a minute?", "Which of the {shapes} is the largest?",
    "What is the opposite of the {thing}?",
)  # fmt: skip
# What may stand before or behind any question.
LEADS = (
    "please: ",
    "Robot, ",
    "now, ",
    "So, ",
    "A question. ",
    "Well, ",
    "I want to know: ",
    "Tell me: ",
    "And ",
    "But ",
)
TAILS = (", please?", ", then?", " exactly?", ", do you know?", "??", " ?", ", robot?", "!")
LED = 0.12
ENDS = ("?", "?", "?", ".", "")
UNLIKE_SHARE, STRANGE_SHARE, NAMES_SHARE = 0.28, 0.12, 0.06
KEPT_EVERY, KEPT = 5, 2  # to judge a choice, every fifth wording of each form is kept out of training
_SLOTS = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class QuestionText:
    """A text with its form and what fills its slots; slots that are not named are empty."""

    text: str
    form: str
    slots: dict[str, str] = field(default_factory=dict)


def draw(
    rng: np.random.Generator, held_out: bool = False, kept: bool | None = None, clean: bool = False, form: str = ""
) -> QuestionText:
    """Draw a text. `held_out`: the held-out wordings and all pairs of colour and shape; else those of training.

    Args:
        rng: source of the draw.
        held_out: as above.
        kept: whether to draw from the wordings that are kept out to judge a choice, or from the others; None: from all.
        clean: leave out the questions of no known form and bare names, and change nothing in the wording.
        form: the form to draw, "" for any.
    """
    chance = 1.0 if clean else rng.random()
    if form == "other" or (not form and chance < UNLIKE_SHARE):
        template = _wording("other", rng, False, kept)
        text = _filled(template, _words("", rng, held_out))
        return QuestionText(text if clean else _changed(text, rng), "other")
    if not form and chance < UNLIKE_SHARE + NAMES_SHARE:
        return _name(rng, held_out)
    form = form or str(rng.choice(list(TEMPLATES)))
    template = _wording(form, rng, held_out, kept)
    words = _words(form, rng, held_out)
    slots = _slots(form, template, words)
    if not clean and form not in PAIRS and rng.random() < STRANGE_SHARE:
        template, words, slots = _estranged(template, words, slots, rng)
    text = _filled(template, words)
    return QuestionText(text if clean else _changed(text, rng), form, slots)


@cache
def wordings(form: str) -> tuple[str, ...]:
    """The wordings of a form in training, "other" for questions of none: the world's, and the frames of paraphrases."""
    listed = UNLIKE if form == "other" else (*TEMPLATES[form][:-1], *OTHER[form])
    return (*listed, *frames_of(form))


def _wording(form: str, rng: np.random.Generator, held_out: bool, kept: bool | None) -> str:
    if held_out:
        return TEMPLATES[form][-1]
    every = wordings(form)
    if kept is not None:
        every = tuple(w for i, w in enumerate(every) if (i % KEPT_EVERY == KEPT) == kept)
    text = drawn(every[int(rng.integers(len(every)))], rng)
    return text if text[-1] in ".?!" else text + str(rng.choice(ENDS))


def _thing(rng: np.random.Generator, held_out: bool) -> Thing:
    if rng.random() < 1 / 8:
        return Thing(str(rng.choice(list(COLOURS))), PERSON)
    every = pairs(held_out)
    return every[int(rng.integers(len(every)))]


def _words(form: str, rng: np.random.Generator, held_out: bool) -> dict[str, str]:
    thing, other = _thing(rng, held_out), _thing(rng, held_out)
    name = str(rng.choice(list(UNITS) if form == "count_sound" else list(SOUNDS)))
    second = str(rng.choice(list(SOUNDS)))
    shapes = str(rng.choice(list(PLURALS)))
    words = {
        "thing": thing.name, "other": other.name, "sound": SOUNDS[name].title, "units": UNITS.get(name, "knocks"),
        "room": str(rng.choice(list(ROOMS))), "shapes": shapes, "shape": str(rng.choice(SHAPES)),
        "_colour": thing.colour, "_shape": thing.shape, "_sound": name,
    }  # fmt: skip
    first, last = (thing.name, other.name) if form == "order_things" else (SOUNDS[name].title, SOUNDS[second].title)
    return words | {"a": first, "b": last}


def _slots(form: str, template: str, words: dict[str, str]) -> dict[str, str]:
    named = set(_SLOTS.findall(template))
    slots = {}
    if "thing" in named:
        slots |= {"colour": words["_colour"], "shape": words["_shape"]}
    # "How many knocks did you hear last time?" names the sound by its unit.
    if form not in PAIRS and ("sound" in named or "units" in named):
        slots["sound"] = words["_sound"]
    if "shape" in named:
        slots["shape"] = words["shape"]
    if "shapes" in named:
        slots["shape"] = PLURALS[words["shapes"]]
    if "room" in named:
        slots["room"] = words["room"]
    return slots


def _estranged(
    template: str, words: dict[str, str], slots: dict[str, str], rng: np.random.Generator
) -> tuple[str, dict[str, str], dict[str, str]]:
    """Ask about something that the world does not have."""
    named = set(_SLOTS.findall(template))
    if "thing" in named:
        words, slots = words | {"thing": str(rng.choice(STRANGE))}, {}
    elif "shape" in named:
        words = words | {"shape": str(rng.choice(STRANGE))}
        slots = {name: label for name, label in slots.items() if name != "shape"}
    elif "shapes" in named:
        words, slots = words | {"shapes": str(rng.choice(STRANGE)) + "s"}, {}
    elif "sound" in named and "units" not in named:
        words, slots = words | {"sound": str(rng.choice(STRANGE_SOUNDS))}, {}
    elif "room" in named:
        words, slots = words | {"room": str(rng.choice(STRANGE_ROOMS))}, {}
    return template, words, slots


def _name(rng: np.random.Generator, held_out: bool) -> QuestionText:
    """The bare name of a thing or sound, as in a choice."""
    if rng.random() < 0.2:
        return QuestionText(
            str(rng.choice([*STRANGE, *STRANGE_SOUNDS, *STRANGE_ROOMS, "yes", "no", "both", "open", "shut"])), "name"
        )
    article = str(rng.choice(["", "", "the ", "a "]))
    if rng.random() < 0.5:
        name = str(rng.choice(list(SOUNDS)))
        return QuestionText(SOUNDS[name].title, "name", {"sound": name})
    thing = _thing(rng, held_out)
    return QuestionText(article + thing.name, "name", {"colour": thing.colour, "shape": thing.shape})


def _filled(template: str, words: dict[str, str]) -> str:
    text = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", template.format(**words))
    return text[0].upper() + text[1:]


def _changed(text: str, rng: np.random.Generator) -> str:
    """A lead or a tail, small words missing, lower case, or no mark at the end, now and then."""
    if rng.random() < LED:
        lead = str(rng.choice(LEADS))
        text = lead + (text[0].lower() + text[1:] if not lead.endswith(". ") else text)
    elif rng.random() < LED:
        text = text.rstrip(".?") + str(rng.choice(TAILS))
    if rng.random() < GAPPY:
        text = " ".join(w for w in text.split(" ") if w not in SMALL or rng.random() >= 0.4) or text
    return text.lower().rstrip(".?") if rng.random() < 0.2 else text
