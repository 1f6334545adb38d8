"""The report stands alone, escapes what it shows, and says what a reader must know first."""

from __future__ import annotations

import re

from salmonn_node.evaluation.questions import EvidenceInterval, Expected, QuestionRecord
from salmonn_node.evaluation.report import ReportData, ReportEntry, render
from salmonn_node.evaluation.scores import judge, score
from salmonn_node.stream.answers import Answer, AnswerType, Evidence
from salmonn_node.stream.observations import SECOND_NS, Interval

HOSTILE = "<script>alert('x')</script>"


def page(warning: str = "") -> str:
    record = QuestionRecord(
        id="q1",
        ask_ns=90 * SECOND_NS,
        text=HOSTILE,
        expected=Expected(text="red"),
        evidence=(EvidenceInterval(start_ns=10 * SECOND_NS, end_ns=20 * SECOND_NS),),
    )
    evidence = Evidence(Interval(10 * SECOND_NS, 12 * SECOND_NS), "vision", "front", "optical", 0.8, None, b"\xff\xd8x")
    answer = Answer(answer_type=AnswerType.TEXT, text=f"{HOSTILE} red", confidence=0.7, evidence=(evidence,))
    judgement = judge(record, answer)
    scores = score([judgement], samples=20)
    entry = ReportEntry(record, answer, judgement, "bag", 0)
    timeline = {"bag": ([1.0, 2.0], [3.0, 4.0])}
    data = ReportData("Replay", warning, {"speed": "20x"}, scores, {"place": scores}, [entry], timeline, ["a note"])
    return render(data)


def test_text_from_outside_is_escaped():
    html = page()
    assert HOSTILE not in html
    assert "&lt;script&gt;alert" in html


def test_nothing_is_fetched_from_a_network():
    html = page()
    body = html[: html.index("<script>")] + html[html.rindex("<script>") :]
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", body)


def test_what_a_reader_must_know_is_there():
    html = page("The checkpoint has untrained weights: these answers are chance.")
    assert "untrained weights" in html
    assert "evidence at 0:00:10 to 0:00:12" in html
    assert "a note" in html
    assert "NaN" not in html[html.rindex("<script>") :]
