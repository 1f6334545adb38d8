"""How long answers are expected to take: the timed curve, and what answers teach."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salmonn_node.answering.answer_time import AnswerTimeModel, prompt_rows, timed_answers
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.stream.answers import AnswerType

TEXT, BINARY, COUNT = AnswerType.TEXT, AnswerType.BINARY, AnswerType.COUNT


def test_the_curve_is_straight_between_and_beyond_and_never_below_its_start() -> None:
    times = AnswerTimeModel([(10, 0.1), (110, 0.2)])
    for rows, seconds in ((0, 0.1), (10, 0.1), (60, 0.15), (110, 0.2), (1110, 1.2)):
        assert times.expected(TEXT, rows).mean_s == pytest.approx(seconds)
    faster_when_longer = AnswerTimeModel([(10, 0.2), (110, 0.1)])  # noise of a loaded machine
    assert faster_when_longer.expected(TEXT, 1000).mean_s == pytest.approx(0.2)
    assert AnswerTimeModel([(10, 0.1)]).expected(TEXT, 1000).mean_s == pytest.approx(0.1)


def test_answers_correct_it_for_their_type_and_others_begin_where_it_stands() -> None:
    times = AnswerTimeModel([(10, 0.1), (110, 0.2)])
    for _ in range(30):
        times.learn(TEXT, 110, 0.4)
    assert times.expected(TEXT, 110).mean_s == pytest.approx(0.4, rel=0.01)
    assert times.expected(TEXT, 10).mean_s == pytest.approx(0.2, rel=0.01)
    assert times.expected(TEXT, 110).deviation_s < 0.02
    assert times.expected(BINARY, 110).mean_s == pytest.approx(0.4, rel=0.01)
    for _ in range(30):
        times.learn(BINARY, 110, 0.1)
    assert times.expected(BINARY, 110).mean_s == pytest.approx(0.1, rel=0.01)
    assert times.expected(TEXT, 110).mean_s == pytest.approx(0.4, rel=0.01)


def test_an_answer_that_was_cut_short_says_only_that_it_takes_no_less() -> None:
    times = AnswerTimeModel([(10, 1.0)])
    times.learn(COUNT, 10, 0.2, whole=False)
    assert times.expected(COUNT, 10).mean_s == 1.0
    for _ in range(20):
        times.learn(COUNT, 10, 5.0, whole=False)
    assert times.expected(COUNT, 10).mean_s > 4.0


@given(
    answers=st.lists(st.tuples(st.integers(0, 10**6), st.floats(1e-4, 1e3)), max_size=20),
    rows=st.integers(0, 10**6),
)
def test_an_expectation_is_positive_whatever_is_learned(answers: list[tuple[int, float]], rows: int) -> None:
    times = AnswerTimeModel([(10, 0.1), (110, 0.2)])
    for count, seconds in answers:
        times.learn(TEXT, count, seconds)
    expected = times.expected(TEXT, rows)
    assert expected.mean_s > 0.0
    assert expected.deviation_s >= 0.0


@pytest.mark.parametrize("timed", [[], [(0, 1.0)], [(10, 0.0)], [(10, -1.0), (20, 1.0)]])
def test_a_curve_of_nothing_is_refused(timed: list[tuple[int, float]]) -> None:
    with pytest.raises(ValueError, match="timed"):
        AnswerTimeModel(timed)


def test_the_real_network_is_timed_at_two_lengths() -> None:
    short, long = timed_answers(VideoSalmonnS.tiny(), 2)
    assert prompt_rows(0, "what is there?") < short[0] < long[0]
    assert min(short[1], long[1]) > 0.0
    AnswerTimeModel([short, long])
