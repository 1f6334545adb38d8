"""The report stands alone, escapes what it shows, and says what a reader must know first."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest
import torch

from salmonn_node.evaluation.held import BINS, HeldTokens, held_tokens
from salmonn_node.evaluation.questions import EvidenceInterval, Expected, QuestionRecord
from salmonn_node.evaluation.report import ReportData, ReportEntry, render
from salmonn_node.evaluation.scores import judge, score
from salmonn_node.stream.answers import Answer, AnswerType, Evidence
from salmonn_node.stream.observations import SECOND_NS, Interval

HOSTILE = "<script>alert('x')</script>"


def page(warning: str = "", *, expected: str = "red", held: HeldTokens | None = None) -> str:
    record = QuestionRecord(
        id="q1",
        ask_ns=90 * SECOND_NS,
        text=HOSTILE,
        expected=Expected(text=expected),
        evidence=(EvidenceInterval(start_ns=10 * SECOND_NS, end_ns=20 * SECOND_NS),),
    )
    evidence = Evidence(Interval(10 * SECOND_NS, 12 * SECOND_NS), "vision", "front", "optical", 0.8, None, b"\xff\xd8x")
    answer = Answer(answer_type=AnswerType.TEXT, text=f"{HOSTILE} red", confidence=0.7, evidence=(evidence,))
    judgement = judge(record, answer)
    scores = score([judgement], samples=20)
    entry = ReportEntry(record, answer, judgement, "bag", 0, held)
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


def held(*counts: int) -> HeldTokens:
    bins = (3,) * BINS
    return HeldTokens(0, 90 * SECOND_NS, bins, bins, counts, (0.0 if counts[0] else 12.0,))


def test_numbers_of_questions_stand_beside_accuracy_by_age():
    html = page()
    assert re.search(r"<td>30-120 s</td><td class=\"n\">1</td>", html)
    plots = json.loads(re.search(r"const plots = (.*);\nplots", html)[1])
    by_age = next(plot for plot in plots if plot["title"] == "Accuracy by age of the evidence")
    assert by_age["traces"][0]["x"] == ["30-120 s<br>1 question"]
    assert by_age["layout"]["xaxis"]["categoryarray"] == ["30-120 s<br>1 question"]


@pytest.mark.parametrize(
    ("kept", "cause", "sentence"),
    [
        (held(4), "misread", "4 visual tokens of the true moment at 0:00:10 to 0:00:20."),
        (held(1), "misread", "1 visual token of the true moment"),
        (held(0), "forgotten", "No visual token of the true moment at 0:00:10 to 0:00:20; the nearest is 12 s away."),
        (None, "not measured", "evidence at 0:00:10 to 0:00:12"),
    ],
)
def test_a_wrong_answer_opens_to_its_evidence_and_to_what_the_memory_held(kept, cause, sentence):
    html = page(expected="green", held=kept)
    question = html[html.index('<details class="q wrong">') : html.index("</details>")]
    assert f"wrong, {cause}" in question
    assert sentence in question
    assert 'src="data:image/jpeg;base64,' in question
    assert ("<svg" in question) == (kept is not None)
    assert re.search(rf"<td>{cause}</td><td class=\"n\">1</td>", html)
    assert '<details class="q wrong">' not in page()


def test_what_a_view_holds_of_the_true_moment():
    seconds = torch.tensor([1, 9, 30, 31, 80], dtype=torch.int64) * SECOND_NS
    visual = SimpleNamespace(stamp_ns=seconds, last_ns=seconds + SECOND_NS)
    view = SimpleNamespace(visual=visual, audio=None)
    record = QuestionRecord(
        id="q",
        ask_ns=90 * SECOND_NS,
        text="?",
        expected=Expected(text="red"),
        evidence=(
            EvidenceInterval(start_ns=10 * SECOND_NS, end_ns=20 * SECOND_NS),  # the second token reaches into it
            EvidenceInterval(start_ns=50 * SECOND_NS, end_ns=60 * SECOND_NS),
            EvidenceInterval(start_ns=50 * SECOND_NS, end_ns=60 * SECOND_NS, modality="audio"),
        ),
    )
    found = held_tokens(view, record, 0)
    assert found.of_evidence == (1, 0, 0)
    assert found.nearest_s == (0.0, 18.0, None)
    assert (sum(found.visual), sum(found.audio)) == (5, 0)
    assert found.kept(record) is True
    assert found.kept(record.model_copy(update={"needs_all": True})) is False
    assert held_tokens(view, record.model_copy(update={"evidence": ()}), 0).kept(record) is None
