"""What the queue passes to the answerer, tells its callers and counts; and that failures of either end no work."""

from __future__ import annotations

import time
from collections.abc import Callable

from answering.desk import LONG_S, Desk

from salmonn_node.answering.ticket import GENERATING, QUEUED, READING, WAITING, Ticket
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Outcome, Question


def test_the_answerer_gets_what_the_ticket_holds(desks: Callable[..., Desk]) -> None:
    desk = desks()
    now, later = desk.ticket("now"), desk.ticket("later", before_ns=1)
    now.on_text = lambda text: None
    desk.queue.submit(now)
    desk.wait(lambda: len(desk.answerer.calls) == 1)
    assert now in desk.queue.open_tickets()
    first = desk.answerer.calls[0]
    assert (first["deadline"], first["cancel"], first["on_text"]) == (now.deadline, now.cancel, now.on_text)
    assert first["view"] is None
    assert now.size == (AnswerType.TEXT, 4)
    assert not first["hurried"]()  # type: ignore[operator]
    desk.queue.submit(later)
    desk.wait(lambda: ("later", QUEUED) in desk.stages)
    assert first["hurried"](), "another one waits"  # type: ignore[operator]
    assert desk.answerer.waited == [{"text": "later", "deadline": later.deadline, "cancel": later.cancel}]
    first["on_stage"]("generating")  # type: ignore[operator]
    desk.go.release(2)
    desk.wait(lambda: len(desk.replies) == 2)
    assert desk.answerer.calls[1]["view"] is desk.answerer.view
    assert [stage for text, stage in desk.stages if text == "now"] == [READING, GENERATING]
    assert [stage for text, stage in desk.stages if text == "later"] == [WAITING, QUEUED, READING]
    assert now.cancel.is_set()
    assert desk.queue.open_tickets() == []


def test_what_the_answerer_raises_is_an_answer_and_the_next_one_is_asked(desks: Callable[..., Desk], caplog) -> None:
    desk = desks()

    def fail(question: Question) -> Answer:
        if question.text == "bad":
            raise ZeroDivisionError("on purpose")
        return Answer(text=question.text)

    desk.answerer.answer = fail
    desk.go.release(2)
    desk.ask("bad")
    assert desk.reply("bad").error_code == ErrorCode.MODEL_ERROR
    assert desk.reply("bad").error_msg == "ZeroDivisionError: on purpose"
    desk.ask("good")
    assert desk.reply("good").text == "good"
    assert "a question failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_reply_that_cannot_be_sent_is_logged_and_the_next_one_is_asked(desks: Callable[..., Desk], caplog) -> None:
    desk = desks()
    desk.go.release(2)

    def fail(answer: Answer) -> None:
        raise OSError("the caller is gone")

    lost = Ticket(Question("lost"), time.monotonic() + LONG_S, fail)
    desk.queue.submit(lost)
    desk.ask("next")
    assert desk.reply("next").text == "next"
    assert "a reply could not be sent" in caplog.text
    assert "the caller is gone" in caplog.text
    assert lost.cancel.is_set()


def test_no_more_questions_are_open_than_allowed(desks: Callable[..., Desk]) -> None:
    desk = desks(max_questions=2)
    one, _ = desk.ask("one"), desk.ask("two")
    desk.ask("three")
    busy = desk.reply("three")
    assert busy.error_code == ErrorCode.BUSY
    assert busy.error_msg == "2 questions are open, and max_questions is 2"
    desk.queue.cancel(one)
    desk.ask("four")
    assert {t.question.text for t in desk.queue.open_tickets()} == {"two", "four"}
    many = desks()
    for number in range(129):
        many.ask(str(number))
    assert many.reply("128").error_msg == "128 questions are open, and max_questions is 128"


def test_cancels_say_why_and_a_canceled_question_is_never_asked(desks: Callable[..., Desk]) -> None:
    desk = desks()
    desk.ask("running")
    desk.wait(lambda: len(desk.answerer.calls) == 1)
    waiting, early = desk.ask("waiting"), desk.ticket("early")
    desk.queue.cancel(waiting)
    desk.queue.cancel(waiting, "again")
    assert desk.reply("waiting").error_code == ErrorCode.CANCELED
    assert desk.reply("waiting").error_msg == "canceled by the caller"
    desk.queue.cancel(early, "before it came")
    desk.queue.submit(early)
    assert desk.reply("early").error_msg == "before it came"
    desk.ask("other")
    desk.queue.cancel_all("the map changed")
    assert desk.reply("other").error_msg == desk.reply("running").error_msg == "the map changed"
    desk.go.release(3)
    desk.ask("after")
    assert desk.reply("after").error_code == ErrorCode.NONE
    assert [call["text"] for call in desk.answerer.calls] == ["running", "after"]
    assert len(desk.replies) == 5
    desk.queue.close()
    desk.ask("closed")
    assert desk.reply("closed").error_msg == "the node shuts down"


def test_a_closed_queue_cancels_with_its_reason(desks: Callable[..., Desk]) -> None:
    for reason, told in ((("good night",), "good night"), ((), "the node shuts down")):
        desk = desks()
        desk.ask("open")
        desk.queue.close(*reason)
        assert (desk.reply("open").error_code, desk.reply("open").error_msg) == (ErrorCode.CANCELED, told)


def test_replies_are_counted_with_their_latency_and_the_last_error(desks: Callable[..., Desk]) -> None:
    desk = desks()
    assert (desk.queue.counts, desk.queue.latency_s, desk.queue.last_error) == ({}, [], "")
    desk.go.release(1000)
    desk.answerer.answer = lambda question: Answer(outcome=Outcome.NOT_OBSERVED)
    for number in range(210):
        desk.ask(str(number))
        desk.reply(str(number))
    assert desk.queue.counts == {"NOT_OBSERVED": 210}
    assert len(desk.queue.latency_s) == 200
    assert all(0.0 <= seconds < 60.0 for seconds in desk.queue.latency_s)
    desk.queue.note_refusal("text is empty")
    assert desk.queue.last_error == "text is empty"
    desk.queue.note_refusal("text is too long")
    assert desk.queue.counts == {"NOT_OBSERVED": 210, "INVALID_REQUEST": 2}
    desk.queue.cancel(desk.ticket("gone"), "of no use")
    assert desk.queue.counts["CANCELED"] == 1
    assert desk.queue.last_error == "of no use"
    desk.ask("last")
    desk.reply("last")
    assert desk.queue.last_error == "of no use", "an answer without an error leaves it"


def test_a_question_that_is_never_ready_gets_no_turn(desks: Callable[..., Desk]) -> None:
    desk = desks()
    desk.answerer.view = None
    early = desk.ask("future", before_ns=1)
    desk.wait(lambda: len(desk.answerer.waited) == 1)
    desk.go.release(1)
    desk.ask("now")
    assert desk.reply("now").text == "now"
    assert desk.queue.open_tickets() == [early]
    assert [call["text"] for call in desk.answerer.calls] == ["now"]
    assert desk.stages[0] == ("future", WAITING)
