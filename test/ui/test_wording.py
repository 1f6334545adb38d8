"""Times and values in a person's words, and times as a person types them."""

from __future__ import annotations

import contextlib
import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Outcome
from salmonn_node.stream.observations import SECOND_NS, Interval, Pose
from salmonn_node.ui.wording import EPOCH_NS, ago, place, seconds, size, span, spread_m, stamp_of, value_of, when

NOON_S = int(time.mktime((2026, 5, 4, 12, 0, 0, 0, 0, -1)))
NOON_NS = NOON_S * SECOND_NS


def test_a_stamp_is_a_time_of_day_or_seconds():
    assert when(NOON_NS) == "12:00:00"
    assert when(12_500_000_000) == "12.5 s"
    assert when(NOON_NS + 3 * SECOND_NS, NOON_NS) == "3.0 s"
    assert span(Interval(NOON_NS, NOON_NS + SECOND_NS)) == "12:00:00 to 12:00:01"
    assert span(Interval(NOON_NS, NOON_NS)) == "12:00:00"
    assert ago(NOON_NS, NOON_NS + 600 * SECOND_NS) == "10.0 min earlier"


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        ("", 0),
        ("11:59", NOON_NS - 60 * SECOND_NS),
        ("11:59:30.5", NOON_NS - 29_500_000_000),
        ("23:00", NOON_NS - 13 * 3600 * SECOND_NS),  # later than now: yesterday
        ("90", NOON_NS - 3600 * SECOND_NS + 90 * SECOND_NS),  # since the memory's start
        ("1.5 s", NOON_NS - 3600 * SECOND_NS + 1_500_000_000),
    ],
)
def test_a_person_types_a_time_of_day_or_seconds(text: str, expected_ns: int):
    assert stamp_of(text, NOON_NS - 3600 * SECOND_NS, NOON_NS) == expected_ns


@pytest.mark.parametrize("text", ["soon", "25:00", "11:75", "-3", "nan", "inf", "1e99", "11:59:30; rm"])
def test_what_is_no_time_is_refused_in_words(text: str):
    with pytest.raises(ValueError, match="is no time"):
        stamp_of(text, NOON_NS - 3600 * SECOND_NS, NOON_NS)


@given(st.integers(1, 10**6))
def test_seconds_of_a_recording_come_back_as_they_are_shown(tenths: int):
    stamp_ns = NOON_NS + tenths * SECOND_NS // 10
    assert stamp_of(when(stamp_ns, NOON_NS), NOON_NS, stamp_ns, NOON_NS) == pytest.approx(stamp_ns, abs=1000)


@given(st.text(max_size=20))
def test_no_text_breaks_the_reading_of_times(text: str):
    with contextlib.suppress(ValueError):
        assert stamp_of(text, NOON_NS, NOON_NS) >= 0


def test_values_in_large_letters():
    pose = Pose(
        1, "map", np.array([1.0, -2.0, 0.0]), np.array([0, 0, 0, 1.0]), np.diag([0.04, 0.09, 0, 0, 0, 0]), "flat"
    )
    cases = {
        "Yes": Answer(answer_type=AnswerType.BINARY, binary=True),
        "No": Answer(answer_type=AnswerType.BINARY),
        "Not observed": Answer(answer_type=AnswerType.BINARY, outcome=Outcome.NOT_OBSERVED),
        "3": Answer(answer_type=AnswerType.COUNT, count=3),
        "2.0 min": Answer(answer_type=AnswerType.DURATION, duration_s=120.0),
        "red": Answer(answer_type=AnswerType.CHOICE, choice_index=1),
        "12:00:00": Answer(answer_type=AnswerType.TIME, event=Interval(NOON_NS, NOON_NS)),
        "x 1.0 m, y -2.0 m": Answer(answer_type=AnswerType.POSITION, pose=pose),
        "Too late": Answer(error_code=ErrorCode.TIMEOUT),
    }
    assert {word: value_of(answer, ("blue", "red")) for word, answer in cases.items()} == {word: word for word in cases}
    assert place(pose) == "x 1.00 m, y -2.00 m ± 0.30 m in map of flat"
    assert math.isclose(spread_m(pose), 0.3)
    assert place(None) == "place unknown"


def test_lengths_and_sizes():
    assert [seconds(v) for v in (0.04, 59, 121, 7_300, 200_000)] == ["0.0 s", "59 s", "2.0 min", "2.0 h", "2.3 days"]
    assert size(2048) == "2 KiB"
    assert size(3 << 20) == "3.0 MiB"
    assert EPOCH_NS < NOON_NS
