"""A calibration fitted to a team's own questions: what is fitted, what stays, and what cross-validation says."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from salmonn_node.answering.abstention import SIGNS
from salmonn_node.answering.confidence import Calibration
from salmonn_node.evaluation.calibration_fit import JudgedAnswer, abstains, before_and_after, fitted
from salmonn_node.evaluation.head_choice import Located
from salmonn_node.evaluation.questions import Expected, QuestionRecord
from salmonn_node.evaluation.scores import Judgement

BASE = Calibration(checkpoint="weights", ambiguous_ratio=0.6, chat={"yes": "Yes"})


def answers(count: int, apart: float, seed: int = 0) -> list[JudgedAnswer]:
    """Two in three are answerable; `apart` tells them from the others. Raw probabilities are overconfident."""
    rng, found = np.random.default_rng(seed), []
    for n in range(count):
        answerable = n % 3 > 0
        expected = Expected(text="hall") if answerable else Expected()
        record = QuestionRecord(id=f"q{n}", ask_ns=1, text="where?", answerable=answerable, expected=expected)
        right = bool(answerable and rng.random() < 0.7)
        raw = float(np.clip(rng.normal(0.97 if right else 0.9, 0.02), 0.01, 0.999))
        judged = Judgement(record, right, False, "", raw, None, None, None, None, None, None, 0.1)
        signs = dict(
            zip(SIGNS, rng.normal(0, 1, 5) + apart * answerable * np.array([1, 1, 0, 0, 0]) - 1.0, strict=True)
        )
        found.append(JudgedAnswer(record, f"q{n - n % 2}", judged, {name: float(v) for name, v in signs.items()}))
    return found


def test_it_abstains_better_and_its_confidences_are_nearer_to_the_truth() -> None:
    before, after = before_and_after(answers(150, 3.0), BASE)
    assert after.f1 > max(0.8, before.f1)
    assert after.error < before.error
    assert 0.0 <= after.wrong <= 1.0


def test_signs_that_tell_nothing_promise_nothing() -> None:
    _, after = before_and_after(answers(150, 0.0), BASE)
    assert after.f1 < 0.6, "abstaining always has .5"


def test_without_a_rule_the_default_one_holds_before_and_after() -> None:
    asked = answers(60, 3.0)
    before, after = before_and_after(asked, BASE, rule=False)
    assert before.f1 == after.f1
    made = fitted(asked, BASE, rule=False)
    assert made.observed is None
    assert made.temperature


def test_all_else_of_the_calibration_stays() -> None:
    asked = answers(60, 3.0)
    made = fitted(asked, BASE)
    assert (made.checkpoint, made.ambiguous_ratio, made.chat) == ("weights", 0.6, {"yes": "Yes"})
    assert (made.questions, set(made.temperature)) == (60, {"TEXT"})
    assert made.observed is not None
    assert Calibration.model_validate_json(made.model_dump_json()) == made


def located(number: int, origin: str) -> Located:
    """Head (1, 0) looks at the evidence, head (0, 0) looks hard at another window."""
    hits = np.arange(12) == number % 12
    attention = np.full((2, 1, 12), 0.01, np.float32)
    attention[1, 0, hits], attention[0, 0, (number + 1) % 12] = 0.5, 0.9
    return Located(origin, attention, np.zeros(12, np.float32), hits)


def test_heads_are_chosen_where_the_evidence_is_known() -> None:
    asked = answers(60, 3.0)
    assert fitted(asked, BASE).heads == ()
    known = [replace(a, located=located(n, a.origin)) for n, a in enumerate(asked)]
    assert fitted(known, BASE).heads == ((1, 0),)
    before, after = before_and_after(known, BASE)
    assert (before.hit, after.hit) == (0.0, 1.0)
    assert math.isnan(before_and_after(asked, BASE)[0].hit)


def test_a_network_with_a_head_keeps_its_rule_of_abstention() -> None:
    asked = [JudgedAnswer(a.record, a.origin, a.judged, None) for a in answers(60, 3.0)]
    made = fitted(asked, BASE.model_copy(update={"null_above": 0.3}))
    assert (made.observed, made.null_above) == (None, 0.3)
    assert made.temperature["TEXT"] != 1.0


def test_too_little_to_fit_on_is_said() -> None:
    with pytest.raises(ValueError, match="two answers of each kind"):
        fitted([a for a in answers(60, 3.0) if a.record.answerable], BASE)
    few = [JudgedAnswer(a.record, a.origin, a.judged, None) for a in answers(8, 3.0)]
    with pytest.raises(ValueError, match="at least 10 answers"):
        fitted(few, BASE)


def test_the_default_rule_is_the_half() -> None:
    one = answers(2, 0.0)[1]
    sure = JudgedAnswer(one.record, one.origin, one.judged, {**one.signs, "shown": math.log(1.01), "gain": -1.0})
    doubtful = JudgedAnswer(one.record, one.origin, one.judged, {**one.signs, "shown": -math.log(1.01), "gain": -1.0})
    assert (abstains(sure, None), abstains(doubtful, None)) == (False, True)
