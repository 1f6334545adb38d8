"""The queue of questions without ROS: who is refused, who comes first, that each gets one reply, and when."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from salmonn_node.answering.answer_time import AnswerTimeModel
from salmonn_node.answering.deadlines import DEADLINE_MARGIN_S, REPLY_S, reply_times
from salmonn_node.answering.question_queue import QuestionQueue
from salmonn_node.answering.ticket import Ticket
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Question

ONE_S = AnswerTimeModel([(1, 1.0)])


class GatedAnswerer:
    """Stands in the answerer's place: an answer comes when the test lets it."""

    def __init__(self, wait_for_view: Callable[[], object]) -> None:
        self.go = threading.Semaphore(0)
        self.change = threading.Condition()
        self.started: list[str] = []
        self._wait_for_view = wait_for_view

    spare_s = 0.0

    def ask(self, question: Question, **_: object) -> Answer:
        with self.change:
            self.started.append(question.text)
            self.change.notify_all()
        self.go.acquire()
        return Answer(text=question.text)

    def wait_for_view(self, question: Question, **_: object) -> object:
        return self._wait_for_view()

    def ahead(self, question: Question) -> bool:
        return question.before_ns > 0

    def size(self, question: Question) -> tuple[AnswerType, int]:
        return question.answer_type, 0


class Desk:
    """A queue of gated answers; what was answered, in order, and all replies."""

    def __init__(self, wait_for_view: Callable[[], object] = lambda: None, **settings: object) -> None:
        self.answerer = GatedAnswerer(wait_for_view)
        self.go, self.change, self.started = self.answerer.go, self.answerer.change, self.answerer.started
        self.replies: list[tuple[str, Answer]] = []
        self.queue = QuestionQueue(self.answerer, **settings)  # type: ignore[arg-type]

    def ask(self, text: str, within_s: float, **fields: object) -> Ticket:
        def reply(answer: Answer) -> None:
            with self.change:
                self.replies.append((text, answer))
                self.change.notify_all()

        question = Question(text, AnswerType.TEXT, **fields)  # type: ignore[arg-type]
        ticket = Ticket(question, time.monotonic() + within_s, reply)
        self.queue.submit(ticket)
        return ticket

    def wait(self, condition: Callable[[], bool]) -> None:
        with self.change:
            assert self.change.wait_for(condition, 20.0), (self.started, self.replies)

    def codes(self) -> dict[str, ErrorCode]:
        with self.change:
            assert len({text for text, _ in self.replies}) == len(self.replies), "one reply each"
            return {text: answer.error_code for text, answer in self.replies}


def test_a_burst_is_refused_at_once_but_for_what_fits(desks: Callable[..., Desk]) -> None:
    desk = desks(answer_times=AnswerTimeModel([(1, 10.0)]))
    for number in range(100):
        desk.ask(str(number), 42.0)
    # Nothing has been answered yet: 10 s each, with deviations 3 fit into 42 s.
    codes = desk.codes()
    busy = {text for text, code in codes.items() if code == ErrorCode.BUSY}
    assert set(codes) == busy == {str(n) for n in range(3, 100)}
    refusal = next(answer for text, answer in desk.replies if text == "99")
    assert "3 questions come first" in refusal.error_msg or "2 questions come first" in refusal.error_msg
    desk.go.release(3)
    desk.wait(lambda: len(desk.replies) == 100)
    assert desk.started == ["0", "1", "2"]
    assert sum(code == ErrorCode.NONE for code in desk.codes().values()) == 3


def test_the_earliest_deadline_comes_first(desks: Callable[..., Desk]) -> None:
    desk = desks(answer_times=ONE_S)
    desk.ask("first", 100.0)
    desk.wait(lambda: desk.started == ["first"])
    desk.ask("late", 90.0)
    desk.ask("early", 50.0)
    desk.go.release(3)
    desk.wait(lambda: len(desk.replies) == 3)
    assert desk.started == ["first", "early", "late"]


def test_one_that_was_taken_is_not_made_late_by_one_that_comes_after(desks: Callable[..., Desk]) -> None:
    desk = desks(answer_times=AnswerTimeModel([(1, 10.0)]))
    desk.ask("first", 100.0)
    desk.wait(lambda: desk.started == ["first"])
    desk.ask("second", 25.0)
    desk.ask("urgent", 24.0)  # would be in time itself, and push the second behind its deadline
    assert desk.codes() == {"urgent": ErrorCode.BUSY}
    assert "an earlier one late" in desk.replies[0][1].error_msg
    desk.go.release(2)
    desk.wait(lambda: len(desk.replies) == 3)
    assert desk.codes()["second"] == ErrorCode.NONE


def test_a_question_that_has_the_network_for_itself_is_tried(desks: Callable[..., Desk]) -> None:
    desk = desks(answer_times=AnswerTimeModel([(1, 1000.0)]))
    desk.go.release()
    desk.ask("hopeless?", 30.0)
    desk.wait(lambda: len(desk.replies) == 1)
    assert desk.codes() == {"hopeless?": ErrorCode.NONE}


def test_after_an_answer_that_took_too_long_the_hopeless_are_told(desks: Callable[..., Desk]) -> None:
    times = AnswerTimeModel([(1, 0.001)])
    desk = desks(answer_times=times)
    desk.ask("first", 100.0)
    desk.wait(lambda: desk.started == ["first"])
    for text, within_s in (("b", 50.0), ("c", 51.0), ("d", 1000.0)):
        desk.ask(text, within_s)
    times.learn(AnswerType.TEXT, 1, 300.0)  # it takes 100 s, as is found out now
    times.learn(AnswerType.TEXT, 1, 300.0)
    desk.go.release()
    desk.wait(lambda: len(desk.replies) == 3)
    assert desk.codes() == {"first": ErrorCode.NONE, "b": ErrorCode.BUSY, "c": ErrorCode.BUSY}
    desk.go.release()
    desk.wait(lambda: len(desk.replies) == 4)
    assert desk.codes()["d"] == ErrorCode.NONE


def test_what_is_not_there_by_the_deadline_is_timeout_though_the_work_goes_on(desks: Callable[..., Desk]) -> None:
    desk = desks(answer_times=ONE_S)
    ticket = desk.ask("deaf", 0.2)
    desk.wait(lambda: len(desk.replies) == 1)
    assert desk.codes() == {"deaf": ErrorCode.TIMEOUT}
    assert ticket.cancel.is_set()
    desk.go.release()
    desk.ask("next", 50.0)
    desk.go.release()
    desk.wait(lambda: len(desk.replies) == 2)
    assert desk.codes() == {"deaf": ErrorCode.TIMEOUT, "next": ErrorCode.NONE}


def test_an_answer_after_the_margin_is_timeout_even_without_the_watchdog(desks: Callable[..., Desk]) -> None:
    desk = desks()
    replies: list[Answer] = []
    ticket = Ticket(Question("late"), time.monotonic() + DEADLINE_MARGIN_S / 2, replies.append)
    desk.queue._reply(ticket, Answer(text="too late"))
    assert [answer.error_code for answer in replies] == [ErrorCode.TIMEOUT]


def test_a_question_about_the_future_holds_up_nobody(desks: Callable[..., Desk]) -> None:
    there = threading.Event()
    desk = desks(answer_times=ONE_S, wait_for_view=lambda: there.wait(30.0) or None)
    desk.ask("future", 20.0, before_ns=1)
    desk.ask("now", 30.0)
    desk.go.release()
    desk.wait(lambda: len(desk.replies) == 1)
    there.set()
    desk.go.release()
    desk.wait(lambda: len(desk.replies) == 2)
    assert desk.started == ["now", "future"]


def test_failures_of_waiting_and_of_answering_are_answers(desks: Callable[..., Desk]) -> None:
    def fail() -> object:
        raise RuntimeError("no view")

    desk = desks(wait_for_view=fail)
    desk.ask("waits", 30.0, before_ns=1)
    desk.wait(lambda: len(desk.replies) == 1)
    assert desk.replies[0][1].error_msg == "RuntimeError: no view"
    assert desk.codes() == {"waits": ErrorCode.MODEL_ERROR}


def test_closing_answers_what_is_open_and_takes_nothing_more(desks: Callable[..., Desk]) -> None:
    desk = desks(answer_times=ONE_S)
    desk.ask("running", 50.0)
    desk.ask("queued", 60.0)
    desk.wait(lambda: desk.started == ["running"])
    desk.queue.close("good night")
    desk.ask("after", 50.0)
    assert desk.codes() == dict.fromkeys(("running", "queued", "after"), ErrorCode.CANCELED)


def test_many_replies_due_at_once_begin_so_early_that_the_last_is_in_time() -> None:
    def ticket(deadline: float) -> Ticket:
        return Ticket(Question("q"), deadline, lambda answer: None)

    alone, *crowd = ticket(5.0), *(ticket(10.0) for _ in range(50))
    times = dict(reply_times([*crowd, alone]))
    assert times[alone] == 5.0 - DEADLINE_MARGIN_S  # a crowd later on costs it nothing
    due = sorted(times[t] for t in crowd)
    assert due[-1] == 10.0 - DEADLINE_MARGIN_S
    assert due[0] == pytest.approx(10.0 - DEADLINE_MARGIN_S - 49 * REPLY_S)
