"""The evidence head: a distribution over memory tokens and nothing, that can prefer the first or the last of equals."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from salmonn_node.model.evidence_head import (
    ORDER_FEATURES,
    QUERIES,
    WAYS,
    EvidenceHead,
    first_and_last,
    last_run,
    order_features,
)

WIDTH = 16


def head(order: tuple[float, ...] = (0.0,) * ORDER_FEATURES) -> EvidenceHead:
    """A head with random weights and one wish about the order, whatever the answer."""
    torch.manual_seed(0)
    made = EvidenceHead(WIDTH)
    with torch.no_grad():
        made.way.weight.zero_()
        made.way.bias.copy_(torch.eye(WAYS)[0] * 30)
        made.order.weight.zero_()
        made.order.bias.copy_(torch.tensor(order))
    return made


def _query(made: EvidenceHead, answer: torch.Tensor) -> torch.Tensor:
    """The first of the head's queries, after which the others are made the same."""
    rows = made.query.weight.unflatten(0, (QUERIES, WIDTH))
    rows[1:] = rows[:1]
    made.query.bias.zero_()
    return made.query(answer)[0, :WIDTH]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(1, 3))
def test_weights_and_null_sum_to_one(tokens: int, answers: int) -> None:
    torch.manual_seed(tokens)
    made = EvidenceHead(WIDTH)
    with torch.no_grad():
        pointing = made(torch.randn(answers, WIDTH), torch.randn(tokens, WIDTH), torch.arange(tokens) // 3)
    assert pointing.weights.shape == (answers, tokens)
    torch.testing.assert_close(pointing.weights.sum(-1) + pointing.null, torch.ones(answers))
    assert torch.isfinite(pointing.context).all()


@pytest.mark.parametrize(("way", "chosen"), [(1, 100), (2, 600)])
def test_the_first_and_the_last_of_what_matches_whatever_else_is_there(way: int, chosen: int) -> None:
    answer = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(1))
    made = head()
    with torch.no_grad():
        made.way.weight.zero_()
        made.way.bias.copy_(torch.eye(WAYS)[way] * 30)
        memory = -20 * made.key.weight.pinverse() @ _query(made, answer).expand(1000, -1).T
        memory = memory.T.clone()
        pointing = made(answer, memory, torch.arange(1000))
        assert pointing.null > 0.9, "nothing matches"
        memory[[100, 101, 350, 600]] *= -1
        pointing = made(answer, memory, torch.arange(1000))
    assert pointing.weights[0, chosen] > 0.9
    torch.testing.assert_close(pointing.weights.sum() + pointing.null[0], torch.tensor(1.0))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-30, 30), min_size=1, max_size=60))
def test_first_last_and_none_share_one(odds: list[float]) -> None:
    match = torch.tensor([odds])
    first, last, none = first_and_last(match)
    torch.testing.assert_close(first.sum() + none[0], torch.tensor(1.0))
    torch.testing.assert_close(last, first_and_last(match.flip(-1))[0].flip(-1))


def test_the_last_run_ends_at_the_last_match_and_begins_after_a_gap() -> None:
    match = torch.tensor([[1.0, 1, 0, 1, 1, 1, 0]])
    last = torch.tensor([[0.0, 0, 0, 0, 0, 1, 0]])
    assert last_run(match, last).tolist() == [[0, 0, 0, 1, 1, 1, 0]]


@pytest.mark.parametrize(("order", "chosen"), [((9.0, 0.0, 0.0), 6), ((-9.0, 0.0, 0.0), 1)])
def test_of_equal_tokens_the_wanted_one_is_first_or_last(order: tuple[float, ...], chosen: int) -> None:
    answer = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(1))
    made = head(order)
    with torch.no_grad():
        memory = -20 * made.key.weight.pinverse() @ _query(made, answer).expand(8, -1).T
        memory = memory.T.clone()
        memory[[1, 4, 6]] *= -1  # three that match what is asked
        weights = made(answer, memory, torch.arange(8)).weights[0]
    assert int(weights.argmax()) == chosen


def test_a_token_matches_when_it_matches_either_query() -> None:
    answer, made = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(1)), head()
    with torch.no_grad():
        one, other = made.query(answer)[0].unflatten(0, (QUERIES, -1))
        back = made.key.weight.pinverse()
        apart = [one - one @ other / (other @ other) * other, other - other @ one / (one @ one) * one]
        memory = torch.stack([*(40 * back @ wish for wish in apart), *(-40 * back @ wish for wish in (one, other))])
        match = made(answer, memory, torch.arange(4)).match[0]
    assert (match[:2] > 0).all()
    assert (match[2:] < match[:2].min()).all()


def test_order_is_centred_and_monotone() -> None:
    features = order_features(100)
    torch.testing.assert_close(features.mean(0), torch.zeros(ORDER_FEATURES), atol=1e-6, rtol=0)
    assert (features[1:, :2] > features[:-1, :2]).all()
    assert (features[1:, 2] < features[:-1, 2]).all()
    assert order_features(0).shape == (0, ORDER_FEATURES)
    assert order_features(1).abs().max() == 0
