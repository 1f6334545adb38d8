"""A network that cannot point: evidence from its windows, and abstention from what it says it was shown."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from answering.oracle_network import START, Line, oracle_answerer

from salmonn_node.answering.confidence import Calibration
from salmonn_node.model.chat_format import ChatFormat
from salmonn_node.stream.answers import AnswerType, Outcome, Question
from salmonn_node.stream.observations import SECOND_NS as S

TEXT = "where is the cup?"


@pytest.fixture
def answerer():
    """It attends to second 10, its windows say second 30, and `said` is how sure it is that it was shown."""
    found = oracle_answerer({TEXT: Line("in the hall", (("front", 10, 1.0),))}, head=False)
    model = found.observer.model
    model.config = model.config.replace(chat=ChatFormat(shown="Shown: {question}"))
    generate, found.asked, found.said = model.answer, [], 0.9

    def answer(question, view, *, shown="", **wanted):
        found.asked.append(shown)
        generation = generate(question, view, **wanted)
        stamps = torch.cat([view.visual.stamp_ns, view.audio.stamp_ns])
        sure = found.said if shown else None
        return replace(generation, grounded=(stamps == START + 30 * S).float(), shown=sure)

    model.answer = answer
    return found


def ask(answerer, kind: AnswerType = AnswerType.TEXT):
    choices = ("in the hall", "b") if kind == AnswerType.CHOICE else ()
    return answerer.ask(Question(TEXT, kind, choices=choices), deadline=time.monotonic() + 60)


def test_evidence_is_where_the_windows_say(answerer) -> None:
    answer = ask(answerer)
    assert answer.outcome == Outcome.ANSWERED
    assert answer.evidence[0].interval.start_ns == START + 30 * S


def test_what_the_network_says_it_was_not_shown_is_not_observed(answerer) -> None:
    answerer.said = 0.3
    answer = ask(answerer)
    assert (answer.outcome, answer.evidence) == (Outcome.NOT_OBSERVED, ())
    assert answerer.asked == [f"Shown: {TEXT}"]
    answerer.calibration = Calibration(checkpoint="oracle", shown_below=0.2)
    assert ask(answerer).outcome == Outcome.ANSWERED
    answerer.said = 0.1
    assert ask(answerer).outcome == Outcome.NOT_OBSERVED


def test_a_no_that_is_said_whatever_is_seen_holds_nothing_back(answerer) -> None:
    generate = answerer.observer.model.answer
    blind: list[float] = [0.2]
    answerer.observer.model.answer = lambda *args, **wanted: replace(generate(*args, **wanted), shown_blind=blind[0])
    answerer.said = 0.3
    assert ask(answerer).outcome == Outcome.ANSWERED, "it says yes more often than with nothing to see"
    blind[0] = 0.4
    assert ask(answerer).outcome == Outcome.NOT_OBSERVED
    answerer.said, blind[0] = 0.6, 0.9
    assert ask(answerer).outcome == Outcome.ANSWERED, "it says yes"
    answerer.calibration = Calibration(checkpoint="oracle", shown_below=0.7)
    assert ask(answerer).outcome == Outcome.NOT_OBSERVED, "a calibration's limit stands alone"


@pytest.mark.parametrize(("kind", "asked"), [(AnswerType.BINARY, False), (AnswerType.CHOICE, True)])
def test_no_is_an_answer_of_its_own(answerer, kind: AnswerType, asked: bool) -> None:
    answerer.said = 0.3
    answer = ask(answerer, kind)
    assert bool(answerer.asked[0]) == asked
    assert answer.outcome == (Outcome.NOT_OBSERVED if asked else Outcome.ANSWERED)


def test_there_is_time_to_spare_while_the_deadline_is_far_and_nobody_waits(answerer) -> None:
    told: list[bool] = []
    generate = answerer.observer.model.answer

    def answer(question, view, *, spare, **wanted):
        told.extend(spare(seconds) for seconds in (0.0, 10.0, 29.0, 31.0, 1e9))
        return replace(generate(question, view, **wanted), spare_s=1.5)

    answerer.observer.model.answer = answer
    question = Question(TEXT, AnswerType.TEXT)
    answerer.ask(question, deadline=time.monotonic() + 60)
    assert told == [True, True, True, False, False], "twice the time must be left"
    assert answerer.spare_s == 1.5
    told.clear()
    answerer.ask(question, deadline=float("inf"))
    assert told == [True] * 5
    told.clear()
    answerer.ask(question, deadline=float("inf"), hurried=lambda: True)
    assert told == [False] * 5
