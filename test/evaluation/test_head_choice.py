"""Which attention heads are chosen: those that look at the evidence, and none where the choice does not pay."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from salmonn_node.evaluation.head_choice import FEWEST, Located, chosen_heads
from salmonn_node.model.evidence_windows import CANDIDATES, WINDOW_NS
from salmonn_node.model.generation import WindowScores
from salmonn_node.stream.observations import Interval

LAYERS, HEADS, WINDOWS = 4, 8, 40
GOOD = ((1, 3), (2, 5))


def questions(count: int, seen: float, seed: int = 0) -> list[Located]:
    """Questions with one true window of many. The good heads see it with probability `seen`, the others look anywhere.

    The sufficiencies tell nothing.
    """
    rng, found = np.random.default_rng(seed), []
    for number in range(count):
        hits = np.zeros(WINDOWS, bool)
        hits[rng.integers(WINDOWS)] = True
        attention = rng.exponential(1.0, (LAYERS, HEADS, WINDOWS))
        for layer, head in GOOD:
            if rng.random() < seen:
                attention[layer, head, hits] += 8.0
        attention /= attention.sum(axis=2, keepdims=True)
        found.append(Located(f"q{number}", attention.astype(np.float32), np.zeros(WINDOWS, np.float32), hits))
    return found


def test_heads_that_look_at_the_evidence_are_chosen() -> None:
    asked = questions(60, 0.9)
    heads = chosen_heads(asked)
    assert set(GOOD) <= set(heads)
    assert len(heads) <= 8
    others = questions(200, 0.9, seed=1)
    before, after = np.mean([q.found() for q in others]), np.mean([q.found(heads) for q in others])
    assert after > before + 0.1, "it holds on questions that the choice was not made on"


@pytest.mark.parametrize("seed", range(5))
def test_where_no_head_tells_anything_the_choice_does_no_harm(seed: int) -> None:
    heads = chosen_heads(questions(60, 0.0, seed))
    others = questions(150, 0.0, seed + 1000)
    before, after = np.mean([q.found() for q in others]), np.mean([q.found(heads) for q in others])
    assert after >= before - 0.03


def test_few_questions_or_few_origins_choose_nothing() -> None:
    assert chosen_heads(questions(FEWEST - 1, 1.0)) == ()
    alike = [Located("one", q.attention, q.sufficiency, q.hits) for q in questions(60, 1.0)]
    assert chosen_heads(alike) == ()
    assert chosen_heads([]) == ()


def test_a_question_counts_only_if_the_memory_still_holds_its_evidence() -> None:
    starts = torch.tensor([3, 4, 9]) * WINDOW_NS
    attention = torch.tensor([0.1, 0.2, 0.7]).expand(1, 2, 3)
    windows = WindowScores(starts, attention, torch.tensor([5.0, 0.0, torch.nan]))
    second = Interval(4 * WINDOW_NS + 5, 4 * WINDOW_NS + 6)
    found = Located.of("q", windows, [second])
    assert found is not None
    assert found.hits.tolist() == [False, True, False]
    assert not found.found(), "the first window makes the answer likelier by far, and the third was not compared"
    assert Located.of("q", windows, [Interval(0, 5)]) is None


def test_only_the_windows_with_most_attention_are_compared() -> None:
    many = CANDIDATES + 2
    attention = torch.linspace(1.0, 2.0, many).expand(1, 1, many)
    sufficiency = torch.zeros(many)
    sufficiency[0] = 50.0
    windows = WindowScores(torch.arange(many) * WINDOW_NS, attention, sufficiency)
    least, most = Interval(0, 5), Interval((many - 1) * WINDOW_NS, (many - 1) * WINDOW_NS + 5)
    first, last = Located.of("q", windows, [least]), Located.of("q", windows, [most])
    assert first is not None
    assert last is not None
    assert not first.found()
    assert last.found()
