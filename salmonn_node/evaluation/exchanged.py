"""Unanswerable questions made of answerable ones: things are exchanged between the questions of a file.

Where one question asks for "the red backpack" and another for "the blue cup", "the blue backpack" was probably never
there. Questions that the file calls unanswerable lend their things first, because nobody has to guess about those.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from salmonn_node.evaluation.questions import Expected, QuestionRecord

ARTICLE = re.compile(r"\b(?:the|a|an|my|your|our)\s+", re.IGNORECASE)
WORD = re.compile(r"[^\W\d_][\w'-]*")
LONGEST = 3  # words of a thing
# Words that end a thing, or that an article precedes without naming one.
_ENDS = (
    "in on at by near under over behind beside between to from for of with and or was were is are be been did do does "
    "has have had when while before after until then now again first last next other same time moment robot you i we "
    "it that which who whose standing lying sitting hanging open shut closed seen heard there here most recent "
    "recently earlier later anywhere time times moment beginning end start word words sound sounds noise colour color "
    "name number position place duration visit look picture photo video camera microphone question answer state side"
)
ENDS = frozenset(_ENDS.split())
# "No" and zero are answers of their own, so such questions are not made unanswerable.
TYPES = ("TEXT", "TIME", "POSITION", "DURATION", "CHOICE")


@dataclass(frozen=True)
class NamedThing:
    """A thing in a question: where its words begin and end in the text, and the words, lower case."""

    start: int
    stop: int
    words: tuple[str, ...]


def things_of(text: str) -> list[NamedThing]:
    """Return the things that a question names: up to LONGEST words after an article. English only."""
    found = []
    for article in ARTICLE.finditer(text):
        words: list[str] = []
        at = stop = article.end()
        while len(words) < LONGEST and (word := WORD.match(text, at)) and word[0].lower() not in ENDS:
            words.append(word[0].lower())
            stop = word.end()
            at = stop + 1 if text[stop : stop + 1] == " " else len(text)
        if words:
            found.append(NamedThing(article.end(), stop, tuple(words)))
    return found


def exchanged(records: Sequence[QuestionRecord]) -> list[tuple[QuestionRecord, str]]:
    """Make at most one unanswerable question of each answerable one: (question, id of the one it was made of).

    A thing that any question or answer of the file names is not put in, unless only unanswerable ones name it.
    """
    named = " | ".join(_words(r) for r in records if r.answerable)
    absent = [t.words for r in records if not r.answerable for t in things_of(r.text) if " ".join(t.words) not in named]
    lent = [t.words for r in records if r.answerable for t in things_of(r.text) if len(t.words) > 1]
    made = []
    for number, record in enumerate(records):
        if not record.answerable or record.answer_type not in TYPES:
            continue
        for thing, words in _offers(record, number, absent, lent):
            phrase = " ".join(words)
            if phrase in named:
                continue
            text = record.text[: thing.start] + phrase + record.text[thing.stop :]
            change = {
                "id": f"{record.id}~{'-'.join(words)}", "text": text, "answerable": False, "expected": Expected(),
                "evidence": (), "needs_all": False, "near_miss": " ".join(thing.words),
            }  # fmt: skip
            made.append((record.model_copy(update=change), record.id))
            break
    return made


def _offers(
    record: QuestionRecord, number: int, absent: Sequence[tuple[str, ...]], lent: Sequence[tuple[str, ...]]
) -> Iterator[tuple[NamedThing, tuple[str, ...]]]:
    """Things to put in, each in the place of a thing of the question. The first offers differ between questions."""
    for thing in things_of(record.text):
        in_turn = [absent[(number + i) % len(absent)] for i in range(len(absent))]
        for words in sorted(in_turn, key=lambda words: _unlike(words, thing.words)):
            yield thing, words
        if len(thing.words) < 2:
            continue
        for i in range(len(lent)):
            other = lent[(number + i) % len(lent)]
            if other[:-1] != thing.words[:-1] and other[-1] != thing.words[-1]:
                yield thing, (*other[:-1], thing.words[-1])


def _unlike(words: Sequence[str], others: Sequence[str]) -> int:
    """How unlike two things are: another door is most like a door, and a dog least like a red backpack."""
    return (words[-1] != others[-1]) + (len(words) != len(others))


def _words(record: QuestionRecord) -> str:
    """All that a question and its answers name, lower case."""
    return " ".join((record.text, record.expected.text, *record.expected.accepted, *record.choices)).lower()
