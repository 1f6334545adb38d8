"""The reader against a slow float64 reference written from its description alone."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from salmonn_node.model import token_selection
from salmonn_node.model.config import ReaderConfig


def heads(h: int, t: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(h, t, d, generator=torch.Generator().manual_seed(seed))


def slow_dot(q: torch.Tensor, k: torch.Tensor, normalised: bool) -> list[float]:
    """One product at a time, keys repeated per query head."""
    unit = (lambda v: v / v.norm().clamp_min(1e-12)) if normalised else (lambda v: v)
    share = q.shape[0] // k.shape[0]
    out = []
    for j in range(k.shape[1]):
        terms = [
            float(unit(q[h, i].double()) @ unit(k[h // share, j].double()))
            for h in range(q.shape[0])
            for i in range(q.shape[1])
        ]
        out.append(sum(terms) / len(terms))
    return out


def slow_attention(q: torch.Tensor, k: torch.Tensor, first: int, cached: int) -> list[float]:
    share = q.shape[0] // k.shape[0]
    total = [0.0] * k.shape[1]
    for h in range(q.shape[0]):
        for i in range(q.shape[1]):
            logits = [
                float(q[h, i].double() @ k[h // share, j].double()) / math.sqrt(q.shape[2])
                for j in range(first + i + 1)
            ]
            top = max(logits)
            weights = [math.exp(x - top) for x in logits]
            for j, w in enumerate(weights):
                total[j] += w / sum(weights)
    return [t / (q.shape[0] * q.shape[1]) for t in total][cached:]


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(4, 4), (6, 2), (8, 1)])
def test_dot_scores(queries: int, keys: int, normalised: bool) -> None:
    q, k = heads(queries, 5, 8, 0), heads(keys, 9, 8, 1)
    torch.testing.assert_close(
        token_selection.dot_scores(q, k, normalised), torch.tensor(slow_dot(q, k, normalised)), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize(("queries", "keys", "cached"), [(4, 4, 0), (6, 2, 7), (8, 1, 3)])
def test_attention_scores(queries: int, keys: int, cached: int) -> None:
    new, question = 9, 4
    q, k = heads(queries, 3, 8, 0), heads(keys, cached + new, 8, 1)
    first = cached + new - question
    got = token_selection.attention_scores(q, k, first, cached)
    torch.testing.assert_close(got, torch.tensor(slow_attention(q, k, first, cached)), atol=1e-6, rtol=1e-5)
    assert got.shape == (new,)


def test_diversity_term() -> None:
    hidden = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).double()
    cosines = [1.0, *(float(a @ b / a.norm() / b.norm()) for a, b in zip(hidden[:-1], hidden[1:], strict=True)), 1.0]
    want = [-0.35 * (cosines[j] + cosines[j + 1]) for j in range(6)]
    torch.testing.assert_close(
        token_selection.diversity_term(hidden.float(), 0.7), torch.tensor(want), atol=1e-6, rtol=1e-5
    )


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_select_keeps_the_best_memory_and_all_text(data: st.DataObject) -> None:
    """Chained groups against a list-based reference; few distinct scores, so ties are common."""
    budget = data.draw(st.integers(1, 8))
    cached = token_selection.nothing_cached()
    reference: list[tuple[float, bool, int]] = []  # score, memory, identity
    identity = 0
    held: list[int] = []
    for _ in range(data.draw(st.integers(1, 4))):
        question = data.draw(st.integers(1, 3))
        flags = data.draw(st.lists(st.booleans(), min_size=1, max_size=8)) + [False] * question
        scores = [float(data.draw(st.integers(-2, 2))) for _ in flags]
        cached_before = held
        cached = token_selection.select(torch.tensor(scores), torch.tensor(flags), question, budget, cached)
        pairs = zip(scores, flags, strict=True)
        new = [(s, f, identity + i) for i, (s, f) in enumerate(pairs)][: len(flags) - question]
        identity += len(flags)
        both = reference + new
        memory = sorted((t for t in both if t[1]), key=lambda t: -t[0])[:budget]
        kept = {t[2] for t in memory} | {t[2] for t in both if not t[1]}
        reference = [t for t in both if t[2] in kept]
        names = cached_before + [t[2] for t in new]
        held = [names[p] for p in cached.positions.tolist()]
        assert held == [t[2] for t in reference]
        assert cached.is_memory.tolist() == [t[1] for t in reference]
        assert cached.scores.tolist() == [t[0] if t[1] else token_selection.TEXT_SCORE for t in reference]


def test_a_group_of_text_alone_keeps_its_text_and_drops_the_question() -> None:
    kept = token_selection.select(
        torch.zeros(5), torch.zeros(5, dtype=torch.bool), 2, 0, token_selection.nothing_cached()
    )
    assert kept.positions.tolist() == [0, 1, 2]


def test_groups_and_budget() -> None:
    flags = torch.tensor([False, True, True, False, True, True, True])
    cut = list(token_selection.groups(flags, group_tokens=3, working_tokens=3))
    assert [(g.start, g.end, g.memory_size) for g in cut] == [(0, 3, 2), (3, 6, 3), (6, 7, 3)]


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="queries"):
        token_selection.dot_scores(torch.zeros(2, 0, 4), torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match="keys"):
        token_selection.dot_scores(torch.zeros(3, 1, 4), torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match="keys"):
        token_selection.dot_scores(torch.zeros(2, 1, 4), torch.zeros(2, 3, 5))
    with pytest.raises(ValueError, match="scores"):
        token_selection.select(
            torch.tensor([float("nan")]), torch.tensor([True]), 0, 1, token_selection.nothing_cached()
        )
    with pytest.raises(ValueError, match="question"):
        token_selection.select(torch.zeros(2), torch.ones(2, dtype=torch.bool), 3, 1, token_selection.nothing_cached())
    for name in ("working_tokens", "group_tokens", "div_factor"):
        with pytest.raises(ValueError, match=name):
            ReaderConfig(**{name: -1})
    with pytest.raises(ValueError, match="group_tokens"):
        ReaderConfig(working_tokens=8)
    with pytest.raises(ValueError, match="score"):
        ReaderConfig(score="best")
