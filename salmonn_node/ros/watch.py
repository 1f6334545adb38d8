"""One watch: asks a question about new observations again and again until the answer is yes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from salmonn_node.answering.question_queue import QuestionQueue
from salmonn_node.answering.ticket import Ticket
from salmonn_node.messages import MessageError
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Outcome, Question

MIN_PERIOD_S = 0.1
CLOCK_LOOK_S = 0.5  # how often a waiting watch checks the ROS clock, because simulated time wakes no thread
# The watch goes on after these codes; any other ends it.
PASSING = (ErrorCode.NONE, ErrorCode.BUSY, ErrorCode.TIMEOUT, ErrorCode.EMPTY_MEMORY)
# After these codes the next look covers the same window again, together with what has come since.
UNREAD = (ErrorCode.BUSY, ErrorCode.TIMEOUT)


@dataclass(frozen=True)
class WatchSettings:
    """Settings of one watch.

    Attributes:
        period_s: seconds between looks.
        until_ns: ROS time at which the watch ends; 0: never.
        timeout_s: deadline of each look, in seconds.
        overlap_ns: how far a look reaches back before what is new.
    """

    period_s: float
    until_ns: int
    timeout_s: float
    overlap_ns: int


class Watch:
    """Looks once per period. Each look is an ordinary question in the queue.

    Args:
        question: a question of type BINARY.
        queue: answers the looks.
        settings: see WatchSettings.
        observed: returns the memory's id and the stamp in ns up to which everything is observed (0: nothing).
        now_ns: returns the ROS time in ns.

    Attributes:
        answer: the answer of the last look; CANCELED with the reason when the watch ended early.
        looks: number of looks so far.
        complete: whether the answer became yes or `until_ns` passed.
    """

    def __init__(
        self,
        question: Question,
        queue: QuestionQueue,
        settings: WatchSettings,
        observed: Callable[[], tuple[str, int]],
        now_ns: Callable[[], int],
    ) -> None:
        self._question = question
        self._queue = queue
        self._settings = settings
        self._observed = observed
        self._now_ns = now_ns
        self._ended = threading.Event()
        self._end_reason = ""
        self._ticket: Ticket | None = None
        self.answer = Answer(answer_type=AnswerType.BINARY, outcome=Outcome.NOT_OBSERVED)
        self.looks = 0
        self.complete = False

    @property
    def became_true(self) -> bool:
        """Whether the last answer is yes, with evidence."""
        answer = self.answer
        return answer.error_code == ErrorCode.NONE and answer.outcome == Outcome.ANSWERED and answer.binary

    def end(self, reason: str) -> None:
        """End the watch early with CANCELED and this reason. Any thread may call this."""
        self._end_reason = reason
        self._ended.set()
        if self._ticket is not None:
            self._queue.cancel(self._ticket, reason)

    def run(self, on_look: Callable[[int], None]) -> None:
        """Look until the answer is yes, a look fails, `until_ns` has passed, or `end` is called.

        Args:
            on_look: called after each look with the stamp in ns up to which everything has been evaluated.
        """
        self._look_until_done(on_look)
        if self._ended.is_set() and not self.complete:
            self.answer = Answer(error_code=ErrorCode.CANCELED, error_msg=self._end_reason)

    def _look_until_done(self, on_look: Callable[[int], None]) -> None:
        after_ns, until_ns = self._question.after_ns, self._settings.until_ns
        memory_id, seen_ns = self._observed()
        next_ns = after_ns or seen_ns + 1  # observations stamped from here on are new
        due = time.monotonic()
        while not self._ended.is_set():
            over = 0 < until_ns <= self._now_ns()
            if over or time.monotonic() >= due:
                due = max(due + self._settings.period_s, time.monotonic())
                found_id, seen_ns = self._observed()
                if found_id != memory_id:
                    memory_id, next_ns = found_id, after_ns or 1  # everything in a new memory is new
                end_ns = min(seen_ns, until_ns or seen_ns)
                if end_ns >= next_ns:
                    first_ns = max(after_ns, next_ns - self._settings.overlap_ns, 1)
                    # With the newest stamp as its end, the question would wait for the next observation. So leave the
                    # end open in that case.
                    answer = self._look(first_ns, end_ns if end_ns < seen_ns else 0)
                    self.complete = self.became_true
                    if self.complete or answer.error_code not in PASSING:
                        return
                    if answer.error_code not in UNREAD:
                        next_ns = end_ns + 1
                    on_look(next_ns - 1)
            if over:
                self.complete = True
                return
            self._ended.wait(min(CLOCK_LOOK_S, max(0.0, due - time.monotonic())))

    def _look(self, after_ns: int, before_ns: int) -> Answer:
        done = threading.Event()
        received = time.monotonic()

        def reply(answer: Answer) -> None:
            self.answer = replace(answer, latency_s=time.monotonic() - received)
            done.set()

        question = replace(self._question, after_ns=after_ns, before_ns=before_ns)
        ticket = Ticket(question, received + self._settings.timeout_s, reply, received=received)
        self._queue.submit(ticket)
        self._ticket = ticket
        if self._ended.is_set():  # `end` was called before there was a ticket to cancel
            self._queue.cancel(ticket, self._end_reason)
        done.wait()
        self.looks += 1
        return self.answer


def watched_question(question: Question, period_s: float, until_ns: int) -> Question:
    """Return the question as BINARY. Raises MessageError when the request is not a valid watch."""
    if question.answer_type not in (AnswerType.BINARY, AnswerType.ANY):
        raise MessageError("invalid_request", f"answer_type is {question.answer_type.name}; a watch needs BINARY")
    if question.before_ns:
        raise MessageError("invalid_request", "before is set; use `until` to end a watch")
    if period_s < MIN_PERIOD_S:
        raise MessageError("invalid_request", f"period is {period_s} s; it must be at least {MIN_PERIOD_S} s")
    if until_ns < 0:
        raise MessageError("invalid_request", f"until is {until_ns} ns; it must not be negative")
    return replace(question, answer_type=AnswerType.BINARY)
