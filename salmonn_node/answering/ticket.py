"""A question on its way to its one reply, and the replies that are no answers."""

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
STAGES = {"reading": READING, "generating": GENERATING}  # those that the answerer names; the queue knows the others


@dataclass(eq=False)
class Ticket:
    """One question on its way.

    Attributes:
        question: what is asked.
        deadline: time.monotonic() by which the reply must be out.
        reply: called once, from any thread, with the answer.
        on_text: called with the text so far while it is generated.
        on_stage: called with the stage that begins.
        received: time.monotonic() of arrival.
        size: type of the answer and about how many rows the prompt has; set by the queue.
        cancel: set when nobody waits for the answer any more; the work stops at the next token.
        view: the view to read, once a question about the future has it.
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
        """Pass on a stage that the answerer names."""
        if name in STAGES:
            self.on_stage(STAGES[name])

    def timeout(self) -> Answer:
        """The reply at the deadline."""
        text = f"no answer within {self.deadline - self.received:.2f} s"
        return Answer(error_code=ErrorCode.TIMEOUT, error_msg=text)

    def busy(self, ahead: int, needed_s: float) -> Answer:
        """The reply to a question that would be late: `ahead` others come first, it needs `needed_s` from now."""
        left_s = self.deadline - time.monotonic()
        text = f"{ahead} questions come first; about {needed_s:.1f} s are needed, {left_s:.1f} s are left"
        return Answer(error_code=ErrorCode.BUSY, error_msg=text)


def failed(error: Exception) -> Answer:
    """The reply to a question whose answer raised an exception."""
    return Answer(error_code=ErrorCode.MODEL_ERROR, error_msg=f"{type(error).__name__}: {error}")
