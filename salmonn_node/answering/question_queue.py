"""Which question is answered next, and that each gets exactly one reply, in time: earliest deadline first. No rclpy."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from salmonn_node.answering.pace import Expected, Pace
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Question

QUEUED, WAITING, READING, GENERATING = range(4)  # stages of action Ask's feedback
STAGES = {"reading": READING, "generating": GENERATING}  # those that the answerer names; the queue knows the others
# What is not there so long before the deadline is TIMEOUT, so that the reply is out in time; where many are due at
# once, earlier by what the replies after it take.
DEADLINE_MARGIN_S = 0.02
REPLY_S = 0.001

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
        size: what the queue's `size` says of it.
        cancel: set when nobody waits for the answer any more; the work stops at the next token.
        view: what is to be read, set by `ready`.
    """

    question: Question
    deadline: float
    reply: Callable[[Answer], None]
    on_text: Callable[[str], None] | None = None
    on_stage: Callable[[int], None] = lambda stage: None
    received: float = field(default_factory=time.monotonic)
    size: tuple[AnswerType, int] = (AnswerType.ANY, 0)
    cancel: threading.Event = field(default_factory=threading.Event)
    view: Any = None
    replied: bool = False

    def tell_stage(self, name: str) -> None:
        """Pass on a stage that the answerer names."""
        if name in STAGES:
            self.on_stage(STAGES[name])


class QuestionQueue:
    """Answers questions one after the other, the earliest deadline first, on a thread of its own.

    A question is refused BUSY at once when, by what is expected of it and of those that come before it, it would not
    be answered in time, or would make one late that was taken before. What takes longer than expected is noticed
    after each answer: then those that cannot be in time any more are told. A question that has the network for itself
    is always tried. One that waits for observations has a thread, and holds up nobody. A watchdog replies TIMEOUT
    before the deadline, whatever the network is doing then.

    Args:
        answer: gives the Answer; it honours the ticket's deadline and cancel as soon as it can.
        ready: waits until everything that the question asks about has been taken in; False when it gave up. None: no
            question waits.
        ahead: whether a question asks about what has not been observed, so that it has to wait.
        size: type of a question's answer, and about how many rows its prompt has; called in `submit`, so it is quick.
        pace: how long answers take; None expects nothing, and refuses nothing that may be late.
        max_questions: more at once are refused BUSY.
    """

    def __init__(
        self,
        answer: Callable[[Ticket], Answer],
        ready: Callable[[Ticket], bool] | None = None,
        *,
        ahead: Callable[[Question], bool] = lambda question: True,
        size: Callable[[Question], tuple[AnswerType, int]] = lambda question: (question.answer_type, 0),
        pace: Pace | None = None,
        max_questions: int = 128,
    ) -> None:
        self._answer = answer
        self._ready = ready
        self._ahead = ahead
        self._size = size
        self._pace = pace
        self._max_questions = max_questions
        self._change = threading.Condition()
        self._open: set[Ticket] = set()
        self._queued: list[Ticket] = []  # those that wait for the network
        self._running: Ticket | None = None
        self._running_since = 0.0
        self._closed = False
        self.counts: Counter[str] = Counter()
        self.latency_s: list[float] = []
        self.last_error = ""
        self._watchdog = threading.Thread(target=self._watch, name="question-deadlines", daemon=True)
        self._watchdog.start()
        threading.Thread(target=self._work, name="questions", daemon=True).start()

    def submit(self, ticket: Ticket) -> None:
        """Take a question; the reply comes through the ticket, also when it is refused."""
        waits = self._ready is not None and self._ahead(ticket.question)
        ticket.size = self._size(ticket.question)
        with self._change:
            if ticket.replied:  # canceled before it came here
                return
            refusal = self._refusal(ticket)
            if refusal is None:
                self._open.add(ticket)
                if not waits:
                    self._queued.append(ticket)
                self._change.notify_all()
        if refusal is not None:
            self._reply(ticket, refusal)
        elif waits:
            threading.Thread(target=self._wait, args=(ticket,), name="question-waits", daemon=True).start()

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

    def expected_s(self, question: Question) -> float:
        """Seconds that this question would be expected to take if it were asked now and had the network for itself."""
        return self._expected(Ticket(question, 0.0, lambda answer: None, size=self._size(question))).mean_s

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
        others = [t for t in self._open if t is not self._running]
        if not others and self._running is None:
            return None
        late = self._late([*others, ticket])
        if ticket in late:
            return _busy(sum(t.deadline <= ticket.deadline for t in others), ticket, late[ticket])
        if late.keys() - self._late(others).keys():
            return Answer(error_code=ErrorCode.BUSY, error_msg="questions that were taken before would become late")
        return None

    def _expected(self, ticket: Ticket) -> Expected:
        return self._pace.expected(*ticket.size) if self._pace is not None else Expected()

    def _late(self, tickets: Iterable[Ticket], caution: float = 1.0) -> dict[Ticket, float]:
        """Those that would not be answered in time, with the seconds from now that they would need.

        Answered in the order of their deadlines, behind the one that is being answered; what is late is left out.
        Deviations, of which `caution` times as much is left besides, add up as those of independent times do.
        """
        now = time.monotonic()
        needed_s = square = 0.0
        if self._running is not None:
            running = self._expected(self._running)
            needed_s = max(0.0, running.mean_s - (now - self._running_since))
            square = running.deviation_s**2
        late = {}
        for ticket in sorted(tickets, key=_by_deadline):
            own = self._expected(ticket)
            with_own_s = needed_s + own.mean_s + caution * math.sqrt(square + own.deviation_s**2)
            if now + with_own_s > ticket.deadline - DEADLINE_MARGIN_S:
                late[ticket] = with_own_s
            else:
                needed_s, square = needed_s + own.mean_s, square + own.deviation_s**2
        return late

    def _give_up_late(self) -> dict[Ticket, Answer]:
        """After an answer: those that cannot be in time any more; if that is all of them, one is tried."""
        late = self._late(self._queued, caution=0.0)
        if late and len(late) == len(self._queued):
            del late[min(late, key=_by_deadline)]
        return {t: _busy(sum(o.deadline < t.deadline for o in self._queued), t, s) for t, s in late.items()}

    # -- work -----------------------------------------------------------------------------------------------------

    def _wait(self, ticket: Ticket) -> None:
        """Until the question's observations are there; then it waits for the network."""
        assert self._ready is not None
        try:
            ticket.on_stage(WAITING)
            if not self._ready(ticket):
                return  # the watchdog or the canceller has replied or is about to
        except Exception as error:
            log.exception("a question failed")
            self._reply(ticket, _failed(error))
            return
        with self._change:
            if ticket.replied:
                return
            self._queued.append(ticket)
            self._change.notify_all()
        ticket.on_stage(QUEUED)

    def _work(self) -> None:
        """Answer, the earliest deadline first, until the queue is closed."""
        while (ticket := self._next()) is not None:
            began = time.monotonic()
            try:
                ticket.on_stage(READING)
                answer = self._answer(ticket)
            except Exception as error:
                # An answer is owed for every question; what went wrong is said in it.
                log.exception("a question failed")
                answer = _failed(error)
            self._reply(ticket, answer)
            self._end_turn(ticket, answer, time.monotonic() - began)

    def _next(self) -> Ticket | None:
        with self._change:
            while not self._queued and not self._closed:
                self._change.wait()
            if self._closed:
                return None
            ticket = min(self._queued, key=_by_deadline)
            self._queued.remove(ticket)
            self._running, self._running_since = ticket, time.monotonic()
            return ticket

    def _end_turn(self, ticket: Ticket, answer: Answer, seconds: float) -> None:
        cut_short = answer.error_code in (ErrorCode.TIMEOUT, ErrorCode.CANCELED)
        if self._pace is not None and (answer.error_code == ErrorCode.NONE or cut_short):
            self._pace.learn(*ticket.size, seconds, whole=not cut_short)
        with self._change:
            self._running = None
            given_up = self._give_up_late()
        for late, refusal in given_up.items():
            self._reply(late, refusal)

    def _watch(self) -> None:
        """Reply TIMEOUT before each deadline."""
        with self._change:
            while not (self._closed and not self._open):
                now = time.monotonic()
                due = _reply_times(self._open)
                late = [ticket for ticket, at in due if at <= now]
                if late:
                    self._change.release()
                    try:
                        for ticket in late:
                            self._reply(ticket, _timeout(ticket))
                    finally:
                        self._change.acquire()
                    continue
                self._change.wait(due[0][1] - now if due else None)

    def _reply(self, ticket: Ticket, answer: Answer) -> None:
        """Send the answer unless one has been sent; late work finds `cancel` set."""
        with self._change:
            if ticket.replied:
                return
            if answer.error_code == ErrorCode.NONE and time.monotonic() > ticket.deadline - DEADLINE_MARGIN_S:
                answer = _timeout(ticket)  # the watchdog was held up
            ticket.replied = True
            self._open.discard(ticket)
            if ticket in self._queued:
                self._queued.remove(ticket)
            self.counts[answer.error_code.name if answer.error_code else answer.outcome.name] += 1
            self.last_error = answer.error_msg or self.last_error
            self.latency_s = [*self.latency_s[-199:], time.monotonic() - ticket.received]
            self._change.notify_all()
        ticket.cancel.set()
        try:
            ticket.reply(answer)
        except Exception:
            log.exception("a reply could not be sent")


def _by_deadline(ticket: Ticket) -> tuple[float, float]:
    return ticket.deadline, ticket.received


def _reply_times(tickets: Iterable[Ticket]) -> list[tuple[Ticket, float]]:
    """When TIMEOUT must be replied at the latest, one after the other, in the order of the deadlines."""
    due: list[tuple[Ticket, float]] = []
    at = math.inf
    for ticket in sorted(tickets, key=_by_deadline, reverse=True):
        at = min(ticket.deadline - DEADLINE_MARGIN_S, at - REPLY_S)
        due.append((ticket, at))
    return due[::-1]


def _busy(ahead: int, ticket: Ticket, needed_s: float) -> Answer:
    left_s = ticket.deadline - time.monotonic()
    text = f"{ahead} questions come first; about {needed_s:.1f} s are needed, {left_s:.1f} s are left"
    return Answer(error_code=ErrorCode.BUSY, error_msg=text)


def _timeout(ticket: Ticket) -> Answer:
    text = f"no answer within {ticket.deadline - ticket.received:.2f} s"
    return Answer(error_code=ErrorCode.TIMEOUT, error_msg=text)


def _failed(error: Exception) -> Answer:
    return Answer(error_code=ErrorCode.MODEL_ERROR, error_msg=f"{type(error).__name__}: {error}")
