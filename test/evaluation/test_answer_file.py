"""Answers survive the file bit for bit, and a line cut off by a kill loses only itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salmonn_node.evaluation.answer_file import Answered, read_answers, to_line, write_answers
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Evidence, Outcome
from salmonn_node.stream.observations import Interval, Pose

finite = st.floats(allow_nan=False, allow_infinity=False, width=64)
stamps = st.integers(0, 2**62)
intervals = st.tuples(stamps, stamps).map(lambda pair: Interval(min(pair), max(pair)))
poses = st.builds(
    Pose,
    stamp_ns=stamps,
    frame_id=st.text(max_size=5),
    position=st.lists(finite, min_size=3, max_size=3).map(np.array),
    orientation=st.just(np.array([0.0, 0.0, 0.0, 1.0])),
    covariance=st.none() | st.just(np.eye(6)),
)
answers = st.builds(
    Answer,
    error_code=st.sampled_from(ErrorCode),
    outcome=st.sampled_from(Outcome),
    answer_type=st.sampled_from(AnswerType),
    text=st.text(max_size=40),
    count=st.integers(0, 10**6),
    pose=st.none() | poses,
    event=st.none() | intervals,
    confidence=st.just(math.nan) | st.floats(0, 1),
    evidence=st.lists(
        st.builds(
            Evidence,
            interval=intervals,
            modality=st.sampled_from(["vision", "audio"]),
            source=st.text(max_size=5),
            frame_id=st.text(max_size=5),
            score=st.floats(0, 1),
            pose=st.none() | poses,
        ),
        max_size=3,
    ).map(tuple),
)


@settings(max_examples=100, deadline=None)
@given(answers)
def test_a_line_reads_back_to_the_same_line(tmp_path_factory, answer):
    path = tmp_path_factory.mktemp("answers") / "answers.jsonl"
    answered = Answered("id", "bag", answer)
    write_answers(path, [answered])
    (read,) = read_answers(path)
    assert to_line(read) == to_line(answered)


def test_a_cut_last_line_is_left_out_and_a_damaged_one_before_it_named(tmp_path):
    path = tmp_path / "answers.jsonl"
    lines = [to_line(Answered(str(i), "bag", Answer())) + "\n" for i in range(3)]
    path.write_text("".join(lines)[:-30])
    assert [a.id for a in read_answers(path)] == ["0", "1"]
    path.write_text(lines[0] + "oops\n" + lines[2])
    with pytest.raises(ValueError, match=r"answers\.jsonl:2: not an answer"):
        list(read_answers(path))
