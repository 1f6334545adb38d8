"""Values held to a grammar: whatever the network prefers, the walk ends and the text can be read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salmonn_node.answering.grammar import PATTERNS, TokenGrammar, pieces_of, read_count, read_seconds
from salmonn_node.model.tiny import VOCABULARY, tiny_tokenizer
from salmonn_node.stream.answers import AnswerType

TOKENIZER = tiny_tokenizer()
PIECES = pieces_of(TOKENIZER, VOCABULARY)
END = TOKENIZER.specials.im_end
GRAMMARS = {kind: TokenGrammar(kind, PIECES, END) for kind in PATTERNS}


@pytest.mark.parametrize("kind", list(PATTERNS))
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_walk_ends_in_a_text_that_can_be_read(kind: AnswerType, seed: int) -> None:
    rng, grammar, ids = np.random.default_rng(seed), GRAMMARS[kind], []
    for _ in range(24):
        allowed = grammar.allowed(TOKENIZER.decode(ids))
        assert allowed == sorted(set(allowed))
        token = allowed[int(rng.integers(len(allowed)))]
        if token == END:
            break
        ids.append(token)
    text = TOKENIZER.decode(ids)
    assert grammar.complete(text)
    assert "".join(PIECES[i] for i in ids) == text
    value = read_count(text) if kind == AnswerType.COUNT else read_seconds(text)
    assert 0 <= value < 3600 * 1e6
    if kind != AnswerType.COUNT:
        assert text.split()[1].rstrip("s") in ("second", "minute", "hour")


@given(number=st.integers(0, 9999))
def test_every_count_can_be_written(number: int) -> None:
    ids = TOKENIZER.encode(str(number))
    for i, token in enumerate(ids):
        assert token in GRAMMARS[AnswerType.COUNT].allowed(TOKENIZER.decode(ids[:i]))
    assert END in GRAMMARS[AnswerType.COUNT].allowed(str(number))


def test_units_are_seconds_and_everything_else_is_refused() -> None:
    assert read_seconds("12.5 seconds") == 12.5
    assert (read_seconds("1 minute"), read_seconds("2 hours")) == (60.0, 7200.0)
    for bad in ("", "12", "12 s", "-1 seconds", "1e9 seconds", "1 minute ago", "01 seconds", "\u0661 seconds"):
        with pytest.raises(ValueError, match="text"):
            read_seconds(bad)
    for bad in ("", "three", "-1", "10000", "1.0", " 1"):
        with pytest.raises(ValueError, match="text"):
            read_count(bad)


def test_a_type_or_a_vocabulary_without_a_grammar_is_refused() -> None:
    with pytest.raises(ValueError, match="TEXT"):
        TokenGrammar(AnswerType.TEXT, PIECES, END)
    with pytest.raises(ValueError, match="pieces"):
        TokenGrammar(AnswerType.COUNT, {1: "1"}, END)
