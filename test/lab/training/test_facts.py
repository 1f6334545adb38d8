"""Facts asked of fast weights: they are the world's, and only what flowed in can tell them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from salmonn_node.lab.training.fact_reader import FactReader, judged
from salmonn_node.lab.training.facts import KINDS, FactSegment, facts_of
from salmonn_node.lab.training.streams import Tokens
from salmonn_node.lab.training.vision import COLOUR, ROOM, SHAPE
from salmonn_node.lab.world.truth import index
from salmonn_node.ttt.layer import TTTConfig

from .banked import demo_truth

MINI_BATCH, UPDATE_S = 16, 4
SEGMENT_S = 8 * UPDATE_S


class OneStream:
    """A bank of one stream of random tokens."""

    def __init__(self, seed: int) -> None:
        truth = demo_truth().piece(0, SEGMENT_S)
        z = torch.randn(SEGMENT_S // 2, 8, 32, generator=torch.Generator().manual_seed(seed))
        self.tokens = Tokens(z, z[None], torch.zeros(2 * SEGMENT_S, 32), truth)

    def stream(self, pieces: object) -> Tokens:
        """Whatever the pieces."""
        return self.tokens


def facts() -> list:
    truth = demo_truth().piece(0, SEGMENT_S)
    return [f for after in (4, 8) for f in facts_of(truth, UPDATE_S, after, np.random.default_rng(0))]


def reader(rule: str) -> FactReader:
    torch.manual_seed(0)
    return FactReader(
        TTTConfig(hidden_size=32, num_heads=2, mini_batch=MINI_BATCH, base_lr=256.0, optimizer=rule, rotary=False,
                  lag_distance=0)
    )  # fmt: skip


def test_facts_are_those_of_the_truth() -> None:
    truth = demo_truth()
    found = facts_of(truth, UPDATE_S, truth.seconds // UPDATE_S, np.random.default_rng(0))
    assert {f.kind for f in found} == set(KINDS)
    ix = index(truth, truth.seconds // UPDATE_S * UPDATE_S)
    things = {(COLOUR[t.colour], SHAPE[t.shape]): t for t in ix.episodes}
    for fact in found:
        colour, shape, room = fact.words
        if fact.kind == "existence":
            assert ((colour, shape) in things) == bool(fact.answer)
        elif fact.kind == "room":
            assert ROOM[ix.episodes[things[colour, shape]][-1].room] == fact.answer
        else:
            there = {t for t, es in ix.episodes.items() if SHAPE[t.shape] == shape and ROOM[es[0].room] == room}
            assert {COLOUR[t.colour] for t in there} == {fact.answer}
        assert -1 <= fact.age < fact.after


@pytest.mark.parametrize(("rule", "tells"), [("static", False), ("hf", True)])
def test_only_an_update_lets_the_stream_tell(rule: str, tells: bool) -> None:
    made, segment = reader(rule), FactSegment((), tuple(facts()))
    losses = []
    for seed in (1, 2):
        with torch.no_grad():
            losses.append(float(judged(made, [segment], OneStream(seed), made.ttt.init_state())[0]))
    assert (losses[0] != losses[1]) == tells


def test_facts_of_one_stream_are_learned() -> None:
    made, segment = reader("hf"), FactSegment((), tuple(facts()))
    optimiser = torch.optim.AdamW(made.parameters(), 1e-2)
    first = last = 0.0
    for _ in range(30):
        loss, found = judged(made, [segment], OneStream(1), made.ttt.init_state(differentiable=True))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        first, last = first or loss.item(), loss.item()
    assert len(found) == len(segment.facts)
    assert last < first / 2
