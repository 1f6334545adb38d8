"""Questions are asked at their stamps in stream time. A stand-in network: only order and bookkeeping are under test."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from salmonn_node.evaluation.answer_file import Answered
from salmonn_node.evaluation.questions import Expected, QuestionRecord
from salmonn_node.replay.runner import ReplayRun
from salmonn_node.stream.answers import Answer, ErrorCode, Question


class ViewOfNumbers(SimpleNamespace):
    """Stand-in for a view request: its view is what was observed up to its moment."""

    def result(self) -> str:
        return self.view


class CountingObserver:
    """Stand-in for the observer: remembers what it was given."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.finished = False
        self.requests: list[ViewOfNumbers] = []

    def submit(self, observation: int) -> None:
        for request in self.requests:
            request.made = request.made or observation > request.before_ns
        self.taken.append(observation)
        for request in self.requests:
            seen = ",".join(str(taken) for taken in self.taken if taken <= request.before_ns)
            request.view = request.view if request.made and request.view else seen

    def request_view(self, before_ns: int) -> ViewOfNumbers:
        self.requests.append(ViewOfNumbers(before_ns=before_ns, made=False, view=""))
        return self.requests[-1]

    def finish(self) -> None:
        self.finished = True

    def status(self) -> SimpleNamespace:
        return SimpleNamespace(tokens=(0, 0))


class EchoAnswerer:
    """Stand-in for the answerer: says what it was given to read."""

    def __init__(self, observer: CountingObserver) -> None:
        self.observer = observer
        self.asked: list[str] = []

    def ask(self, question: Question, *, deadline: float, cancel: threading.Event, view: str) -> Answer:
        self.asked.append(question.text)
        if question.text == "break":
            raise RuntimeError("broken")
        return Answer(text=view)


def question(name: str, ask_ns: int, text: str = "what") -> QuestionRecord:
    return QuestionRecord(id=name, ask_ns=ask_ns, text=text, expected=Expected(text="x"))


@pytest.fixture
def parts():
    observer = CountingObserver()
    return observer, EchoAnswerer(observer)


STREAM = [(t, t) for t in (10, 20, 30)]


def test_a_question_sees_everything_up_to_its_stamp_and_nothing_later(parts):
    run = ReplayRun(*parts, [question("late", 25), question("early", 10), question("at", 20)])
    texts = {a.id: a.answer.text for a in run.run(STREAM)}
    assert texts == {"early": "10", "at": "10,20", "late": "10,20"}
    assert parts[0].finished


def test_a_question_behind_the_end_is_asked_at_the_end_and_noted(parts):
    run = ReplayRun(*parts, [question("q", 30 + 2_000_000_000)])
    (answered,) = run.run(STREAM)
    assert answered.answer.text == "10,20,30"
    assert run.late == {"q": 2.0}


def test_known_answers_are_not_asked_again(parts):
    known = {"a": Answered("a", "", Answer(text="from before"))}
    run = ReplayRun(*parts, [question("a", 10), question("b", 20, "new")], known)
    assert [a.answer.text for a in run.run(STREAM)] == ["from before", "10,20"]
    assert parts[1].asked == ["new"]


def test_one_broken_answer_is_an_error_and_the_rest_goes_on(parts):
    run = ReplayRun(*parts, [question("a", 10, "break"), question("b", 20)])
    a, b = run.run(STREAM)
    assert a.answer.error_code == ErrorCode.MODEL_ERROR
    assert "broken" in a.answer.error_msg
    assert b.answer.text == "10,20"


def test_a_stop_ends_between_observations(parts):
    run = ReplayRun(*parts, [question("a", 10), question("b", 40)])
    answers = list(run.run(STREAM, should_stop=lambda: len(parts[0].taken) >= 2))
    assert run.interrupted
    assert [a.id for a in answers] == ["a"]
