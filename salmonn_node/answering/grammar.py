"""Constrained decoding of typed values: the decoder may only choose tokens that keep the value readable.

Each type has a pattern for its text. A token is allowed if the text with it can still be completed. The end is allowed
if the text is complete. The patterns bound the length, so decoding always ends, and every accepted text can be parsed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

import regex

from salmonn_node.stream.answers import AnswerType

COUNT = r"(0|[1-9][0-9]{0,3})"
# Tenths of a second, as in the prompt's time marks. Longer units also allow tenths.
SECONDS = r"(0|[1-9][0-9]{0,5})(\.[0-9])? seconds"
DURATION = r"(0|[1-9][0-9]{0,5})(\.[0-9])? (seconds?|minutes?|hours?)"
PATTERNS = {AnswerType.COUNT: COUNT, AnswerType.TIME: SECONDS, AnswerType.DURATION: DURATION}
ALPHABET = frozenset("0123456789. secondsminuteshours")
UNIT_S = {"second": 1.0, "minute": 60.0, "hour": 3600.0}


class Vocabulary(Protocol):
    """The part of a tokenizer that a grammar needs."""

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, without special tokens."""
        ...


@dataclass
class TokenGrammar:
    """The allowed tokens for one answer type.

    Args:
        kind: COUNT, TIME or DURATION.
        pieces: text of each usable token by its id, from `pieces_of`.
        end: id of the token that ends the answer.

    Raises:
        ValueError: the type has no pattern, or a character of the patterns has no token of its own.
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
        """Ids of tokens that may follow `text`, ascending. Never empty if `text` was made of allowed tokens."""
        ids = [i for i, piece in self.pieces.items() if self._pattern.fullmatch(text + piece, partial=True)]
        if self._pattern.fullmatch(text):
            ids.append(self.end)
        return sorted(ids)

    def complete(self, text: str) -> bool:
        """Whether `text` is a complete value."""
        return self._pattern.fullmatch(text) is not None


def pieces_of(tokenizer: Vocabulary, size: int) -> dict[int, str]:
    """Tokens with ids below `size` whose text has only characters of the patterns: id -> text."""
    texts = ((i, tokenizer.decode([i])) for i in range(size))
    return {i: text for i, text in texts if text and ALPHABET.issuperset(text)}


def read_count(text: str) -> int:
    """Parse the text of a COUNT.

    Raises:
        ValueError: the text is not a count.
    """
    if not regex.fullmatch(COUNT, text):
        raise ValueError(f"text: {text!r} is not a count")
    return int(text)


def read_seconds(text: str) -> float:
    """Parse the text of a TIME or DURATION to seconds.

    Raises:
        ValueError: the text is neither.
    """
    if not regex.fullmatch(DURATION, text):
        raise ValueError(f"text: {text!r} is not a number with a unit of time")
    number, unit = text.split(" ")
    return float(number) * UNIT_S[unit.rstrip("s")]
