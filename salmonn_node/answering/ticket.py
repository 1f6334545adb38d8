"""Ticket: a question in the queue with its deadline and its one reply, and the replies for timeouts and errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Question

if TYPE_CHECKING:
    from salmonn_node.model.scene_view import SceneView

QUEUED, WAITING, READING, GENERATING = range(4)  # stages of action Ask's feedback
STAGES = {"reading": READING, "generating": GENERATING}  # reported by the answerer; the queue sets the others


@dataclass(eq=False)
class Ticket:
    """One question in the queue.

    Attributes:
        question: the question.
        deadline: time.monotonic() by which the reply must be sent.
        reply: called once, from any thread, with the answer.
        on_text: called with each new piece of the text while it is generated.
        on_stage: called with each stage as it begins.
        received: time.monotonic() of arrival.
        size: type of the answer and approximate number of prompt rows; set by the queue.
        cancel: set when the answer is no longer needed; the work stops at the next token.
        view: the view to read, once a question that waits for observations has it.
        replied: whether `reply` was called.
    """

    question: Question
    deadline: float
    reply: Callable[[Answer], None]
    on_text: Callable[[str], None] | None = None
    on_stage: Callable[[int], None] = lambda stage: None
    received: float = field(default_factory=time.monotonic)
    size: tuple[AnswerType, int] = (AnswerType.ANY, 0)
    cancel: threading.Event = field(default_factory=threading.Event)
    view: SceneView | None = None
    replied: bool = False

    def tell_stage(self, name: str) -> None:
        """Pass a stage of the answerer on to `on_stage`."""
        if name in STAGES:
            self.on_stage(STAGES[name])

    def timeout(self) -> Answer:
        """The TIMEOUT reply at the deadline."""
        text = f"no answer within {self.deadline - self.received:.2f} s"
        return Answer(error_code=ErrorCode.TIMEOUT, error_msg=text)

    def busy(self, ahead: int, needed_s: float) -> Answer:
        """The BUSY reply to a question that would be late: `ahead` others come first, it needs `needed_s` seconds."""
        left_s = self.deadline - time.monotonic()
        text = f"{ahead} questions come first; about {needed_s:.1f} s are needed, {left_s:.1f} s are left"
        return Answer(error_code=ErrorCode.BUSY, error_msg=text)


def failed(error: Exception) -> Answer:
    """The MODEL_ERROR reply to a question that raised an exception."""
    return Answer(error_code=ErrorCode.MODEL_ERROR, error_msg=f"{type(error).__name__}: {error}")
