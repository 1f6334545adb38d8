"""The rule that tells from five signs what the memory shows: its fit, its threshold, and what it holds back."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from answering.oracle_network import Line, oracle_answerer
from hypothesis import given
from hypothesis import strategies as st

from salmonn_node.answering.abstention import MOST_HELD_BACK, SIGNS, Observed, best_threshold, f1, fit, signs_of
from salmonn_node.answering.confidence import Calibration, read_calibration
from salmonn_node.model.chat_format import ChatFormat
from salmonn_node.model.generation import Generation
from salmonn_node.stream.answers import AnswerType, Outcome, Question

TEXT = "where is the cup?"
SAID = Generation(
    "in the hall", [1], [math.log(0.8)], torch.ones(1), shown=0.9, shown_blind=0.5, sufficiency=2.0, focus=0.4
)


def drawn(count: int, apart: float, seed: int = 0):
    """Signs of `count` answers, half of them shown, whose first two signs lie `apart` standard deviations apart."""
    rng, shown = np.random.default_rng(seed), np.arange(count) % 2 == 0
    table = rng.normal(0, 1, (count, len(SIGNS)))
    table[:, :2] += apart * shown[:, None]
    return [dict(zip(SIGNS, row.tolist(), strict=True)) for row in table], shown.tolist()


def test_the_fit_finds_the_signs_that_tell_and_holds_on_other_answers() -> None:
    rule = fit(*drawn(400, 2.0))
    assert min(rule.weights["answer"], rule.weights["shown"]) > 5 * abs(rule.weights["attention"])
    signs, shown = drawn(400, 2.0, seed=1)
    abstained = np.array([rule.probability(s) < rule.least for s in signs])
    assert f1(abstained, ~np.array(shown)) > 0.85


def test_answers_that_a_sign_separates_wholly_still_give_a_finite_rule() -> None:
    signs, shown = drawn(20, 50.0)
    rule = fit(signs, shown)
    assert all(math.isfinite(w) for w in (*rule.weights.values(), rule.bias))
    assert [rule.probability(s) >= rule.least for s in signs] == shown
    with pytest.raises(ValueError, match="two answers of each kind, got 1 of 3"):
        fit(signs[:3], [True, False, False])


@given(st.lists(st.tuples(st.integers(0, 1000), st.booleans()), min_size=2, max_size=30))
def test_no_other_threshold_that_holds_back_as_little_has_a_better_f1(found: list[tuple[int, bool]]) -> None:
    probability, unshown = np.array([p / 1000 for p, _ in found]), np.array([u for _, u in found])

    def held_back(cut: float) -> float:
        return float((probability < cut)[~unshown].mean()) if (~unshown).any() else 0.0

    chosen = best_threshold(probability, unshown)
    assert held_back(chosen) <= MOST_HELD_BACK
    values = np.unique(probability)
    for cut in [0.0, *((a + b) / 2 for a, b in zip(values, values[1:], strict=False))]:
        if held_back(cut) <= MOST_HELD_BACK:
            assert f1(probability < chosen, unshown) >= f1(probability < cut, unshown)


def test_signs_are_those_of_a_network_without_a_head() -> None:
    sure = signs_of(SAID, says_unknown=False)
    assert sure is not None
    assert (sure["sufficiency"], sure["attention"]) == (2.0, 0.4)
    assert sure["answer"] == pytest.approx(math.log(0.8 / 0.2))
    unknown = signs_of(SAID, says_unknown=True)
    assert unknown is not None
    assert unknown["answer"] == pytest.approx(-sure["answer"])
    assert signs_of(replace(SAID, shown=None), says_unknown=False) is None


def test_the_answerer_holds_back_what_the_rule_says(tmp_path) -> None:
    answerer = oracle_answerer({TEXT: Line("in the hall", (("front", 10, 1.0),))}, head=False)
    model = answerer.observer.model
    model.config = model.config.replace(chat=ChatFormat(shown="Shown: {question}"))
    generate = model.answer
    model.answer = lambda *args, **wanted: replace(
        generate(*args, **wanted), shown=0.4, shown_blind=0.5, sufficiency=2.0, focus=0.4
    )  # fmt: skip

    def outcome(calibration: Calibration | None) -> Outcome:
        answerer.calibration = calibration
        return answerer.ask(Question(TEXT, AnswerType.TEXT), deadline=time.monotonic() + 60).outcome

    assert outcome(None) == Outcome.NOT_OBSERVED, "it said no: the default rule"
    rule = Observed(weights={"sufficiency": 1.0}, bias=-1.0, least=0.7)
    file = tmp_path / "calibration.json"
    file.write_text(Calibration(checkpoint="oracle", observed=rule).model_dump_json())
    assert outcome(read_calibration(file, "oracle")) == Outcome.ANSWERED, "sigmoid(1) is .73"
    stricter = rule.model_copy(update={"least": 0.75})
    assert outcome(Calibration(checkpoint="oracle", observed=stricter)) == Outcome.NOT_OBSERVED
    assert answerer.signs["sufficiency"] == 2.0
