"""Which question is answered next, and that each gets exactly one reply, in time: earliest deadline first. No rclpy."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Question

QUEUED, WAITING, READING, GENERATING = range(4)  # stages of action Ask's feedback
STAGES = {"queued": QUEUED, "waiting": WAITING, "reading": READING, "generating": GENERATING}
DEADLINE_MARGIN_S = 0.02  # the TIMEOUT reply leaves a little before the deadline, so that it arrives in time

log = logging.getLogger(__name__)


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
        cancel: set when nobody waits for the answer any more; the work stops at the next token.
        view: what is to be read, set by `ready`.
    """

    question: Question
    deadline: float
    reply: Callable[[Answer], None]
    on_text: Callable[[str], None] | None = None
    on_stage: Callable[[int], None] = lambda stage: None
    received: float = field(default_factory=time.monotonic)
    cancel: threading.Event = field(default_factory=threading.Event)
    view: Any = None
    replied: bool = False

    def tell_stage(self, name: str) -> None:
        """Pass on a stage that the answerer names."""
        if name in STAGES:
            self.on_stage(STAGES[name])


class QuestionQueue:
    """Answers questions one after the other, the earliest deadline first.

    Each ticket has a thread of its own, so that one that waits for observations holds up nobody; one at a time
    generates. A watchdog replies TIMEOUT at the deadline, whatever the network is doing then.

    Args:
        answer: gives the Answer; it honours the ticket's deadline and cancel as soon as it can.
        ready: waits until everything that the question asks about has been taken in; False when it gave up.
        max_questions: more at once are refused BUSY.
    """

    def __init__(
        self,
        answer: Callable[[Ticket], Answer],
        ready: Callable[[Ticket], bool] = lambda ticket: True,
        *,
        max_questions: int = 128,
    ) -> None:
        self._answer = answer
        self._ready = ready
        self._max_questions = max_questions
        self._change = threading.Condition()
        self._open: set[Ticket] = set()
        self._turn: list[tuple[float, int, Ticket]] = []  # heap of those that wait for the network
        self._busy_since: float | None = None
        self._number = itertools.count()
        self._estimate_s: dict[AnswerType, float] = {}
        self._closed = False
        self.counts: Counter[str] = Counter()
        self.latency_s: list[float] = []
        self.last_error = ""
        self._watchdog = threading.Thread(target=self._watch, name="question-deadlines", daemon=True)
        self._watchdog.start()

    def submit(self, ticket: Ticket) -> None:
        """Take a question; the reply comes through the ticket, also when it is refused."""
        with self._change:
            refusal = self._refusal(ticket)
            if refusal is None:
                self._open.add(ticket)
                self._change.notify_all()
        if refusal is not None:
            self._reply(ticket, refusal)
            return
        threading.Thread(target=self._serve, args=(ticket,), name="question", daemon=True).start()

    def note_refusal(self, text: str) -> None:
        """Count a question that was too malformed to become a ticket."""
        with self._change:
            self.counts[ErrorCode.INVALID_REQUEST.name] += 1
            self.last_error = text

    def cancel(self, ticket: Ticket, text: str = "canceled by the caller") -> None:
        """Reply CANCELED now and stop the work."""
        self._reply(ticket, Answer(error_code=ErrorCode.CANCELED, error_msg=text))

    def cancel_all(self, text: str) -> None:
        """Reply CANCELED to all that are open."""
        for ticket in self.open_tickets():
            self.cancel(ticket, text)

    def open_tickets(self) -> list[Ticket]:
        """Questions that have not been replied to."""
        with self._change:
            return list(self._open)

    def close(self, reason: str = "the node shuts down") -> None:
        """Cancel what is open, and take nothing more."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        self.cancel_all(reason)
        self._watchdog.join()

    # -- admission ------------------------------------------------------------------------------------------------

    def _refusal(self, ticket: Ticket) -> Answer | None:
        if self._closed:
            return Answer(error_code=ErrorCode.CANCELED, error_msg="the node shuts down")
        if len(self._open) >= self._max_questions:
            text = f"{len(self._open)} questions are open, at most {self._max_questions} are taken"
            return Answer(error_code=ErrorCode.BUSY, error_msg=text)
        ahead = [t for _, _, t in self._turn if t.deadline <= ticket.deadline and not t.replied]
        if not ahead and self._busy_since is None:
            return None
        own_s = self._estimate(ticket)
        now = time.monotonic()
        running_s = max(0.0, own_s - (now - self._busy_since)) if self._busy_since is not None else 0.0
        needed_s = running_s + sum(self._estimate(t) for t in ahead) + own_s
        if now + needed_s > ticket.deadline:
            left_s = ticket.deadline - now
            text = f"{len(ahead)} questions come first; about {needed_s:.1f} s are needed, {left_s:.1f} s are left"
            return Answer(error_code=ErrorCode.BUSY, error_msg=text)
        return None

    def _estimate(self, ticket: Ticket) -> float:
        return self._estimate_s.get(ticket.question.answer_type, 0.0)

    # -- work -----------------------------------------------------------------------------------------------------

    def _serve(self, ticket: Ticket) -> None:
        try:
            ticket.on_stage(WAITING)
            if not self._ready(ticket) or not self._take_turn(ticket):
                return  # the watchdog or the canceller has replied or is about to
            started = time.monotonic()
            try:
                ticket.on_stage(READING)
                answer = self._answer(ticket)
            finally:
                self._end_turn(ticket, time.monotonic() - started)
        except Exception as error:
            # An answer is owed for every question; what went wrong is said in it.
            log.exception("a question failed")
            answer = Answer(error_code=ErrorCode.MODEL_ERROR, error_msg=f"{type(error).__name__}: {error}")
        self._reply(ticket, answer)

    def _take_turn(self, ticket: Ticket) -> bool:
        ticket.on_stage(QUEUED)
        entry = (ticket.deadline, next(self._number), ticket)
        with self._change:
            heapq.heappush(self._turn, entry)
            while not ticket.replied and (self._busy_since is not None or self._turn[0] is not entry):
                self._change.wait()
            self._turn.remove(entry)
            heapq.heapify(self._turn)
            self._change.notify_all()
            if ticket.replied:
                return False
            self._busy_since = time.monotonic()
        return True

    def _end_turn(self, ticket: Ticket, seconds: float) -> None:
        with self._change:
            self._busy_since = None
            if not ticket.replied:
                old = self._estimate_s.get(ticket.question.answer_type, seconds)
                self._estimate_s[ticket.question.answer_type] = 0.7 * old + 0.3 * seconds
            self._change.notify_all()

    def _watch(self) -> None:
        with self._change:
            while not (self._closed and not self._open):
                now = time.monotonic()
                late = [t for t in self._open if t.deadline - DEADLINE_MARGIN_S <= now]
                if late:
                    self._change.release()
                    try:
                        for ticket in late:
                            text = f"no answer within {ticket.deadline - ticket.received:.2f} s"
                            self._reply(ticket, Answer(error_code=ErrorCode.TIMEOUT, error_msg=text))
                    finally:
                        self._change.acquire()
                    continue
                next_s = min((t.deadline - DEADLINE_MARGIN_S - now for t in self._open), default=None)
                self._change.wait(next_s)

    def _reply(self, ticket: Ticket, answer: Answer) -> None:
        """Send the answer unless one has been sent; late work finds `cancel` set."""
        with self._change:
            if ticket.replied:
                return
            ticket.replied = True
            self._open.discard(ticket)
            self.counts[answer.error_code.name if answer.error_code else answer.outcome.name] += 1
            self.last_error = answer.error_msg or self.last_error
            self.latency_s = [*self.latency_s[-199:], time.monotonic() - ticket.received]
            self._change.notify_all()
        ticket.cancel.set()
        try:
            ticket.reply(answer)
        except Exception:
            log.exception("a reply could not be sent")
