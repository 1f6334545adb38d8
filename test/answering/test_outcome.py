"""Abstention and ambiguity, over the plain answerer with an oracle in the network's place."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
from answering.oracle_network import START, Line, oracle_answerer

from salmonn_node.answering.confidence import (
    Calibration,
    calibration_error,
    exact_calibration_error,
    fit_temperature,
    read_calibration,
    risk_coverage,
    scaled,
)
from salmonn_node.answering.outcome import outcome_of
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Outcome, Question
from salmonn_node.stream.observations import SECOND_NS as S

STRICT = Calibration(
    checkpoint="oracle", temperature={"TEXT": 2.0}, weakest_evidence=0.2, null_above=0.6, ambiguous_ratio=0.7
)
LINES = {
    "where is the cup?": Line("in the hall", (("front", 10, 1.0),)),
    "where is the snake?": Line("in the hall", (("front", 10, 0.1),), null=0.9),
    "where is nothing?": Line("in the hall"),
    "where is a faint thing?": Line(
        "in the hall", (("front", 10, 0.18), ("front", 30, 0.16), ("front", 50, 0.16)), 0.5
    ),
    "where is one of two?": Line("in the hall", (("front", 10, 0.5), ("front", 50, 0.5)), value="2"),
    "what is there?": Line("unknown", (("front", 10, 1.0),)),
    "when is one of two?": Line("at ten", (("front", 10, 0.5), ("front", 50, 0.5)), value="10 seconds"),
}


def ask(answerer, text: str, kind: AnswerType = AnswerType.TEXT, **fields: object) -> Answer:
    answer = answerer.ask(Question(text, kind, **fields), deadline=time.monotonic() + 60)
    assert answer.error_code == ErrorCode.NONE, answer.error_msg
    return answer


@pytest.fixture(scope="module")
def plain():
    return oracle_answerer(LINES)


@pytest.fixture(scope="module")
def strict():
    return oracle_answerer(LINES, calibration=STRICT)


@pytest.mark.parametrize("kind", [k for k in AnswerType if k != AnswerType.ANY])
def test_what_was_never_seen_is_not_observed_and_holds_nothing_to_act_upon(plain, kind: AnswerType) -> None:
    choices = ("a", "b") if kind == AnswerType.CHOICE else ()
    for text in ("where is the snake?", "where is nothing?"):
        answer = ask(plain, text, kind, choices=choices)
        assert (answer.outcome, answer.answer_type, answer.text) == (Outcome.NOT_OBSERVED, kind, "not observed")
        assert (answer.evidence, answer.pose, answer.event, answer.choice_index) == ((), None, None, -1)
        assert math.isnan(answer.confidence)


def test_thresholds_on_evidence_apply_only_where_a_calibration_gives_them(plain, strict) -> None:
    assert ask(plain, "where is a faint thing?").outcome == Outcome.ANSWERED
    assert ask(strict, "where is a faint thing?").outcome == Outcome.NOT_OBSERVED
    assert ask(strict, "where is the cup?").outcome == Outcome.ANSWERED
    assert ask(plain, "where is one of two?", AnswerType.POSITION).outcome == Outcome.ANSWERED


@pytest.mark.parametrize("kind", [AnswerType.TIME, AnswerType.POSITION])
def test_two_candidates_far_apart_are_ambiguous_and_both_given(strict, kind: AnswerType) -> None:
    answer = ask(strict, f"{'when' if kind == AnswerType.TIME else 'where'} is one of two?", kind)
    assert answer.outcome == Outcome.AMBIGUOUS
    assert sorted(round((e.interval.start_ns - START) / S) for e in answer.evidence) == [10, 50]
    assert ask(strict, "where is one of two?", AnswerType.COUNT).outcome == Outcome.ANSWERED


def test_the_word_for_not_knowing_is_not_observed_where_a_calibration_names_it(plain, strict) -> None:
    assert ask(plain, "what is there?").outcome == ask(strict, "what is there?").outcome == Outcome.ANSWERED
    knows = oracle_answerer(LINES, calibration=STRICT.model_copy(update={"unknown": "unknown"}))
    answer = ask(knows, "what is there?")
    assert (answer.outcome, answer.text, answer.evidence) == (Outcome.NOT_OBSERVED, "not observed", ())
    assert ask(knows, "where is the cup?").outcome == Outcome.ANSWERED


def test_an_untrained_head_is_not_believed() -> None:
    answer = ask(oracle_answerer(LINES, seconds=30), "where is the cup?")
    assert outcome_of(AnswerType.TEXT, answer.evidence, 0.99, trained=False) == Outcome.ANSWERED
    assert outcome_of(AnswerType.TEXT, answer.evidence, 0.99, trained=True) == Outcome.NOT_OBSERVED


def test_a_calibration_file_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    file.write_text(STRICT.model_dump_json())
    assert read_calibration(file, "oracle") == STRICT
    with pytest.raises(ValueError, match="checkpoint: made for oracle"):
        read_calibration(file, "other")
    for bad in ("{", '{"checkpoint": "x", "weakest_evidence": 2}', '{"checkpoint": "x", "temperature": {"TEXT": 0}}'):
        file.write_text(bad)
        with pytest.raises(ValueError, match=r"calibration\.json"):
            read_calibration(file, "oracle")


def test_a_fitted_temperature_makes_overconfident_answers_calibrated() -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    true = rng.uniform(0.3, 0.95, 4000)
    right = rng.random(4000) < true
    stated = scaled(true, 1 / 3)  # three times too sure
    temperature = fit_temperature(stated, right)
    assert temperature == pytest.approx(3.0, rel=0.1)
    assert calibration_error(scaled(stated, temperature), right) < 0.03 < calibration_error(stated, right)
    for answers, by_chance in ((100, 0.08), (4000, 0.015)):  # few answers show an error even where there is none
        mean, ninth_decile = exact_calibration_error(true[:answers], draws=100, seed=1)
        assert mean == pytest.approx(by_chance, rel=0.2)
        assert mean < ninth_decile < 1.6 * mean
    curve = risk_coverage(stated, right)
    assert curve[-1] == (1.0, pytest.approx(1 - right.mean()))
    assert curve[len(curve) // 4][1] < curve[-1][1]
    with pytest.raises(ValueError, match="probability"):
        fit_temperature([1.5], [True])
