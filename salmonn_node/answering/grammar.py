"""What a typed value may look like, token by token: the decoder is only offered tokens that keep it readable.

An answer is held to a pattern over its text. A token is allowed when the text so far with it can still be completed,
the end when it is complete. The patterns bound the length, so that every walk ends, and every text that they let
through can be read without guessing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

import regex

from salmonn_node.stream.answers import AnswerType

COUNT = r"(0|[1-9][0-9]{0,3})"
# Tenths of a second, as in the prompt's time marks; whole or tenths of the longer units.
SECONDS = r"(0|[1-9][0-9]{0,5})(\.[0-9])? seconds"
DURATION = r"(0|[1-9][0-9]{0,5})(\.[0-9])? (seconds?|minutes?|hours?)"
PATTERNS = {AnswerType.COUNT: COUNT, AnswerType.TIME: SECONDS, AnswerType.DURATION: DURATION}
ALPHABET = frozenset("0123456789. secondsminuteshours")
UNIT_S = {"second": 1.0, "minute": 60.0, "hour": 3600.0}


class Vocabulary(Protocol):
    """What a grammar needs of a tokenizer."""

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, without special tokens."""
        ...


@dataclass
class TokenGrammar:
    """A pattern over a vocabulary.

    Args:
        kind: COUNT, TIME or DURATION.
        pieces: text of each usable token by its id, as `pieces_of` gives them.
        end: id of the token that ends the answer.

    Raises:
        ValueError: a type without a pattern, or a character of it that no token of its own spells.
    """

    kind: AnswerType
    pieces: dict[int, str]
    end: int
    _pattern: regex.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in PATTERNS:
            raise ValueError(f"kind: {self.kind.name} has no grammar")
        missing = ALPHABET - set(self.pieces.values())
        if missing:
            raise ValueError(f"pieces: no token of its own for {''.join(sorted(missing))!r}")
        self._pattern = regex.compile(PATTERNS[self.kind])

    def allowed(self, text: str) -> list[int]:
        """Ids that may follow `text`, ascending; never empty while `text` itself came about by this rule."""
        ids = [i for i, piece in self.pieces.items() if self._pattern.fullmatch(text + piece, partial=True)]
        if self._pattern.fullmatch(text):
            ids.append(self.end)
        return sorted(ids)

    def complete(self, text: str) -> bool:
        """Whether `text` is a whole value."""
        return self._pattern.fullmatch(text) is not None


def pieces_of(tokenizer: Vocabulary, size: int) -> dict[int, str]:
    """Ids below `size` whose text is made of the patterns' characters alone."""
    texts = ((i, tokenizer.decode([i])) for i in range(size))
    return {i: text for i, text in texts if text and ALPHABET.issuperset(text)}


def read_count(text: str) -> int:
    """The number that a COUNT spells.

    Raises:
        ValueError: it is none.
    """
    if not regex.fullmatch(COUNT, text):
        raise ValueError(f"text: {text!r} is not a count")
    return int(text)


def read_seconds(text: str) -> float:
    """Seconds that a TIME or DURATION spells.

    Raises:
        ValueError: it is neither.
    """
    if not regex.fullmatch(DURATION, text):
        raise ValueError(f"text: {text!r} is not a number with a unit of time")
    number, unit = text.split(" ")
    return float(number) * UNIT_S[unit.rstrip("s")]
