"""The scorer: every kind of answer, abstention, errors, and the tables."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from salmonn_node.evaluation.baselines import BlindAnswerer, MajorityAnswerer, always_unknown, expected_answer
from salmonn_node.evaluation.questions import (
    QuestionFileError,
    QuestionRecord,
    parse_questions,
    read_questions,
    write_questions,
)
from salmonn_node.evaluation.scores import interval_iou, judge, score, text_matches
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Outcome, PoseKind
from salmonn_node.stream.observations import SECOND_NS, Interval

S = SECOND_NS
EVIDENCE = [{"start_ns": 5 * S, "end_ns": 8 * S}]


def record(**fields: object) -> QuestionRecord:
    base: dict[str, object] = {"id": "q", "ask_ns": 60 * S, "text": "?", "evidence": EVIDENCE}
    return QuestionRecord.model_validate(base | fields)


EVERY_TYPE = [
    record(
        answer_type="TEXT",
        kind="colour",
        expected={"text": "red", "vocabulary": ["red", "blue"], "accepted": ["crimson"]},
    ),
    record(answer_type="BINARY", kind="existence", expected={"binary": True}),
    record(answer_type="COUNT", kind="count", expected={"count": 3}),
    record(answer_type="CHOICE", kind="order", choices=["a", "b"], expected={"choice_index": 1}),
    record(answer_type="POSITION", kind="where_robot", expected={"position_m": [1, 2, 0]}),
    record(answer_type="POSITION", kind="where_object", expected={"position_m": [1, 2, 0.8], "pose_kind": "OBJECT"}),
    record(answer_type="TIME", kind="when_last", expected={"event_start_ns": 5 * S, "event_end_ns": 8 * S}),
    record(answer_type="DURATION", kind="how_long", expected={"duration_s": 20.0}),
]
UNANSWERABLE = [
    r.model_copy(update={"answerable": False, "evidence": (), "expected": type(r.expected)()}) for r in EVERY_TYPE
]


@pytest.mark.parametrize("question", EVERY_TYPE, ids=lambda r: r.kind)
def test_expected_answer_is_right_and_unknown_is_wrong(question: QuestionRecord) -> None:
    right = judge(question, expected_answer(question))
    assert right.correct
    assert right.evidence_hit
    assert right.evidence_iou == 1.0
    assert not judge(question, always_unknown(question)).correct


@pytest.mark.parametrize("question", UNANSWERABLE, ids=lambda r: r.kind)
def test_only_abstaining_is_right_when_there_is_nothing(question: QuestionRecord) -> None:
    assert judge(question, always_unknown(question)).correct
    claim = Answer(text="red", binary=True, count=3, choice_index=1, event=Interval(5 * S, 8 * S), duration_s=20.0)
    assert not judge(question, claim).correct


def test_no_and_zero_abstain_only_where_there_is_nothing() -> None:
    assert judge(UNANSWERABLE[1], Answer(binary=False)).correct
    assert judge(UNANSWERABLE[2], Answer(count=0)).abstained
    assert judge(UNANSWERABLE[0], Answer(text="Nothing.")).correct
    assert not judge(EVERY_TYPE[1], Answer(binary=False)).abstained


@pytest.mark.parametrize("code", [c for c in ErrorCode if c != ErrorCode.NONE])
def test_errors_are_wrong_even_when_unanswerable(code: ErrorCode) -> None:
    for question in (EVERY_TYPE[0], UNANSWERABLE[0]):
        judged = judge(question, Answer(error_code=code, outcome=Outcome.NOT_OBSERVED))
        assert not judged.correct
        assert judged.error == code.name
    assert not judge(UNANSWERABLE[0], None).correct


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("red", True),
        ("The RED one.", True),
        ("It was crimson", True),
        ("red or blue", False),
        ("not red", False),
        ("blue", False),
        ("", False),
        ("bored", False),
    ],
)
def test_text(said: str, right: bool) -> None:
    assert text_matches(said, EVERY_TYPE[0]) is right


def test_position_needs_frame_kind_and_tolerance() -> None:
    question = EVERY_TYPE[5]
    good = expected_answer(question)
    assert good.pose is not None
    far = dataclasses.replace(good.pose, position=np.array([1.0, 3.6, 0.0]))
    other = dataclasses.replace(good.pose, frame_id="odom")
    assert judge(question, dataclasses.replace(good, pose=far)).position_error_m == pytest.approx(1.6)
    assert not judge(question, dataclasses.replace(good, pose=far)).correct
    assert not judge(question, dataclasses.replace(good, pose=other)).correct
    assert not judge(question, dataclasses.replace(good, pose_kind=PoseKind.OBSERVER)).correct
    assert not judge(question, dataclasses.replace(good, pose=None)).correct


def test_time_and_duration_errors() -> None:
    late = judge(EVERY_TYPE[6], Answer(event=Interval(12 * S, 12 * S)))
    assert late.correct
    assert late.time_error_s == 4.0
    assert not judge(EVERY_TYPE[6], Answer(event=Interval(14 * S, 14 * S))).correct
    assert judge(EVERY_TYPE[7], Answer(duration_s=25.0)).correct
    assert not judge(EVERY_TYPE[7], Answer(duration_s=25.1)).correct


def test_iou() -> None:
    assert interval_iou(Interval(0, 10 * S), Interval(5 * S, 15 * S)) == pytest.approx(1 / 3, abs=1e-3)
    assert interval_iou(Interval(0, 1), Interval(5 * S, 5 * S)) == 0.0
    assert interval_iou(Interval(5, 5), Interval(5, 5)) == 1.0


def test_tables() -> None:
    questions = [q.model_copy(update={"stream": str(i % 6)}) for i, q in enumerate((*EVERY_TYPE, *UNANSWERABLE))]
    oracle = score([judge(q, expected_answer(q), kept=True) for q in questions], samples=50)
    assert all(row["accuracy"] == 1.0 for row in oracle["by_kind"].values())
    assert oracle["abstention"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    assert oracle["calibration"]["ece"] == 0.0
    unknown = score([judge(q, always_unknown(q)) for q in questions], samples=50)
    assert unknown["all"]["accuracy"] == 0.5
    assert unknown["abstention"]["recall"] == 1.0
    assert unknown["abstention"]["precision"] == 0.5
    assert unknown["all"]["low"] <= 0.5 <= unknown["all"]["high"]
    assert set(oracle["by_age"]) == {"30-120 s"}
    silent = score([judge(q, None) for q in questions], samples=10)
    assert silent["all"]["accuracy"] == 0.0
    assert silent["errors"] == {"NO_ANSWER": 16}
    assert math.isnan(score([], samples=10)["all"]["accuracy"])


def test_bootstrap_is_seeded() -> None:
    judged = [judge(q, always_unknown(q)) for q in (*EVERY_TYPE, *UNANSWERABLE)]
    assert str(score(judged, samples=50, seed=3)) == str(score(judged, samples=50, seed=3))


def test_baselines() -> None:
    train = [EVERY_TYPE[0], EVERY_TYPE[0], UNANSWERABLE[0], EVERY_TYPE[2]]
    majority = MajorityAnswerer(train)
    assert judge(EVERY_TYPE[0], majority(EVERY_TYPE[0])).correct
    assert majority(EVERY_TYPE[7]).outcome == Outcome.NOT_OBSERVED
    blind = BlindAnswerer(train)
    unheard = EVERY_TYPE[2].model_copy(update={"text": "never asked before"})
    assert blind(unheard).count == 3
    assert blind(unheard).answer_type == AnswerType.COUNT


def test_files_round_trip_and_bad_lines_are_named(tmp_path) -> None:
    path = tmp_path / "q.jsonl"
    questions = [q.model_copy(update={"id": str(i)}) for i, q in enumerate(EVERY_TYPE)]
    assert write_questions(path, questions) == len(questions)
    assert read_questions(path) == questions
    lines = [*path.read_text().splitlines(), "{", '{"id": "x"}', path.read_text().splitlines()[0]]
    items = list(parse_questions(lines, "f"))
    errors = [str(i) for i in items if isinstance(i, QuestionFileError)]
    assert len(items) - len(errors) == len(questions)
    assert [e.split(" ")[0] for e in errors] == ["f:9:", "f:10:", "f:11:"]
    path.write_text("\n".join(lines))
    with pytest.raises(QuestionFileError, match=":9: not JSON"):
        read_questions(path)


def test_records_that_cannot_be_scored_are_refused() -> None:
    with pytest.raises(ValueError, match="two choices"):
        record(answer_type="CHOICE", choices=["a"], expected={"choice_index": 0})
    with pytest.raises(ValueError, match="outside"):
        record(answer_type="CHOICE", choices=["a", "b"], expected={"choice_index": 2})
    with pytest.raises(ValueError, match="expected.count"):
        record(answer_type="COUNT", expected={})
    with pytest.raises(ValueError, match="no evidence"):
        record(answerable=False)
    with pytest.raises(ValueError, match="ends before"):
        record(evidence=[{"start_ns": 2, "end_ns": 1}], expected={"text": "x"})
