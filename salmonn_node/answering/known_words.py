"""How much of a question a checkpoint's own vocabulary knows: a question in another language is no guess to trust."""

from __future__ import annotations

import re
from typing import Protocol

_WORDS = re.compile(r"[^\W\d_]{2,}")


class Tokenizer(Protocol):
    """What is needed of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""


def known_share(tokenizer: Tokenizer, text: str) -> float:
    """Share of the words of `text`, of two letters and more, that are one token each; 1 without such words.

    It says something about a tokenizer that was made from the checkpoint's training text, as the tiny checkpoint's was:
    each word of that text is a token, and a word that never occurred falls into pieces.
    """
    words = _WORDS.findall(text)
    known = 0
    for word in words:
        forms = (f" {word}", f" {word.lower()}", word)
        known += any(len(tokenizer.encode(form)) == 1 for form in forms)
    return known / len(words) if words else 1.0
