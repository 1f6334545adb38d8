"""Share of a question's words that a checkpoint's vocabulary knows, to lower the confidence in unknown languages."""

from __future__ import annotations

import re
from typing import Protocol

_WORDS = re.compile(r"[^\W\d_]{2,}")


class Tokenizer(Protocol):
    """The part of a tokenizer that is needed here."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""


def known_share(tokenizer: Tokenizer, text: str) -> float:
    """Share of the words of `text` with two or more letters that are a single token; 1 if there are no such words.

    The share is meaningful if the tokenizer was made from the checkpoint's training text, like that of the tiny
    checkpoint. Then each word of that text is one token, and an unknown word is split into pieces.
    """
    words = _WORDS.findall(text)
    known = 0
    for word in words:
        forms = (f" {word}", f" {word.lower()}", word)
        known += any(len(tokenizer.encode(form)) == 1 for form in forms)
    return known / len(words) if words else 1.0
