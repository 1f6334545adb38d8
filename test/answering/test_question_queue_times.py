"""What the queue learns from answers, and whom it refuses for want of time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from answering.desk import Desk

from salmonn_node.answering.answer_time import AnswerTimeModel
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Question


class Times(AnswerTimeModel):
    """Ten seconds a row; keeps what it is told."""

    def __init__(self) -> None:
        super().__init__([(1, 10.0), (101, 1010.0)])
        self.told: list[tuple[int, float, bool]] = []
        self.change = threading.Condition()

    def learn(self, kind: AnswerType, rows: int, seconds: float, *, whole: bool = True) -> None:
        assert kind == AnswerType.TEXT
        with self.change:
            self.told.append((rows, seconds, whole))
            self.change.notify_all()

    def wait(self, count: int) -> None:
        with self.change:
            assert self.change.wait_for(lambda: len(self.told) >= count, 60.0), self.told


def test_answers_and_what_was_cut_short_teach_how_long_they_take(desks: Callable[..., Desk]) -> None:
    times = Times()
    desk = desks(answer_times=times)
    assert desk.queue.expected_s(Question("abcd", AnswerType.TEXT)) == pytest.approx(50.0)
    assert desks().queue.expected_s(Question("abcd", AnswerType.TEXT)) == 0.0
    desk.go.release(4)
    results = {
        "a": Answer(error_code=ErrorCode.EMPTY_MEMORY, error_msg="nothing"),
        "abcd": Answer(text="whole"),
        "ab": Answer(error_code=ErrorCode.CANCELED, error_msg="x"),
        "abc": Answer(error_code=ErrorCode.TIMEOUT, error_msg="x"),
    }
    desk.answerer.answer = lambda question: results[question.text]
    for text in results:
        desk.ask(text)
        desk.reply(text)
    desk.queue.close()
    times.wait(3)
    assert [(rows, whole) for rows, _, whole in times.told] == [(5, True), (3, False), (4, False)]
    assert all(0.0 <= seconds < 60.0 for _, seconds, _ in times.told)


def test_spare_seconds_of_an_answer_are_not_learned(desks: Callable[..., Desk]) -> None:
    times = Times()
    desk = desks(answer_times=times)
    began = time.monotonic()
    desk.answerer.spare_s = -500.0  # as if the answer had taken so much longer
    desk.ask("abcd")
    desk.go.release()
    desk.reply("abcd")
    desk.answerer.spare_s = 500.0
    desk.ask("abc")
    desk.go.release()
    desk.reply("abc")
    desk.queue.close()
    times.wait(2)
    assert 500.0 <= times.told[0][1] <= 500.0 + time.monotonic() - began
    assert times.told[1][1] == 0.0


def test_the_refusal_says_how_many_come_first_and_what_is_missing(desks: Callable[..., Desk]) -> None:
    desk = desks(answer_times=Times())
    desk.ask("running", 900.0)
    desk.wait(lambda: len(desk.answerer.calls) == 1)
    desk.ask("ab", 200.0)  # 80 s of the one that runs, 30 s of its own
    desk.ask("abc", 900.0)
    desk.ask("abcd", 190.0)  # 80 + 50 s, with a quarter of each as caution: in time, and would push "ab" too far
    assert "abcd" not in dict(desk.replies)
    desk.ask("abcde", 100.0)
    busy = desk.reply("abcde")
    assert busy.error_code == ErrorCode.BUSY
    assert busy.error_msg.startswith("0 questions come first; about 1")
    assert "100.0 s are left" in busy.error_msg or "99." in busy.error_msg
    desk.ask("abcdef", 210.0)
    assert desk.reply("abcdef").error_msg.startswith("2 questions come first; about 2")


def test_of_waiting_questions_that_are_all_late_the_earliest_is_tried(desks: Callable[..., Desk]) -> None:
    times = AnswerTimeModel([(1, 0.001)])
    desk = desks(answer_times=times)
    desk.ask("first")
    desk.wait(lambda: len(desk.answerer.calls) == 1)
    for text, within_s in (("later", 400.0), ("earliest", 300.0), ("latest", 500.0)):
        desk.ask(text, within_s)
    for _ in range(2):
        times.learn(AnswerType.TEXT, 1, 9000.0)  # as is found out now, none of them can be in time
    desk.go.release()
    assert desk.reply("later").error_code == desk.reply("latest").error_code == ErrorCode.BUSY
    assert desk.reply("later").error_msg.startswith("1 questions come first")
    desk.go.release()
    assert desk.reply("earliest").text == "earliest"
    assert [call["text"] for call in desk.answerer.calls] == ["first", "earliest"]
