"""A question queue over an answerer that a test lets answer, with all replies and stages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from salmonn_node.answering.question_queue import QuestionQueue
from salmonn_node.answering.ticket import Ticket
from salmonn_node.stream.answers import Answer, AnswerType, Question

LONG_S = 1000.0


class Answerer:
    """Answers with the question's text, or raises it; keeps what it was called with."""

    def __init__(self) -> None:
        self.spare_s = 0.0
        self.go = threading.Semaphore(0)
        self.calls: list[dict[str, object]] = []
        self.waited: list[dict[str, object]] = []
        self.view: object = object()
        self.change = threading.Condition()
        self.answer: Callable[[Question], Answer] = lambda question: Answer(text=question.text)

    def ask(self, question: Question, **settings: object) -> Answer:
        with self.change:
            self.calls.append({"text": question.text, **settings})
            self.change.notify_all()
        self.go.acquire()
        return self.answer(question)

    def wait_for_view(self, question: Question, **settings: object) -> object:
        self.waited.append({"text": question.text, **settings})
        return self.view

    def ahead(self, question: Question) -> bool:
        return question.before_ns > 0

    def size(self, question: Question) -> tuple[AnswerType, int]:
        return question.answer_type, 1 + len(question.text)


class Desk:
    """A queue over such an answerer, with all replies and stages."""

    def __init__(self, **settings: object) -> None:
        self.answerer = Answerer()
        self.go, self.change = self.answerer.go, self.answerer.change
        self.replies: list[tuple[str, Answer]] = []
        self.stages: list[tuple[str, int]] = []
        self.queue = QuestionQueue(self.answerer, **settings)  # type: ignore[arg-type]

    def ticket(self, text: str, within_s: float = LONG_S, **fields: object) -> Ticket:
        def note(to: list, value: object) -> None:
            with self.change:
                to.append((text, value))
                self.change.notify_all()

        question = Question(text, AnswerType.TEXT, **fields)  # type: ignore[arg-type]
        return Ticket(
            question,
            time.monotonic() + within_s,
            lambda answer: note(self.replies, answer),
            on_stage=lambda stage: note(self.stages, stage),
        )

    def ask(self, text: str, within_s: float = LONG_S, **fields: object) -> Ticket:
        ticket = self.ticket(text, within_s, **fields)
        self.queue.submit(ticket)
        return ticket

    def wait(self, condition: Callable[[], bool]) -> None:
        with self.change:
            assert self.change.wait_for(condition, 60.0), (self.answerer.calls, self.replies, self.stages)

    def reply(self, text: str) -> Answer:
        self.wait(lambda: text in dict(self.replies))
        return dict(self.replies)[text]
