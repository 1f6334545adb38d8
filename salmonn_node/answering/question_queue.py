"""The question queue: answers one question at a time, the earliest deadline first. Each gets one reply, in time."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable

from salmonn_node.answering.answer_time import AnswerTimeModel, ExpectedTime
from salmonn_node.answering.answerer import Answerer
from salmonn_node.answering.deadlines import DEADLINE_MARGIN_S, by_deadline, late_tickets, reply_times
from salmonn_node.answering.ticket import QUEUED, READING, WAITING, Ticket, failed
from salmonn_node.stream.answers import Answer, ErrorCode, Question

log = logging.getLogger(__name__)


class QuestionQueue:
    """Answers questions one by one in its own thread.

    A question is refused with BUSY at once in two cases: its answer is expected to be late, or it would make an earlier
    question late. After each answer, the queue checks again and gives BUSY to waiting questions that can no longer be
    answered in time. A question is always tried if no other is open. A question that waits for observations waits in
    its own thread and delays no other. A watchdog replies TIMEOUT before the deadline, even if the network is busy.

    Args:
        answerer: gives the answers; it stops soon after a ticket's deadline or cancel.
        answer_times: predicts how long answers take; without it, no question is refused for being late.
        max_questions: most open questions; further ones get BUSY.

    Attributes:
        counts: number of replies by error code or outcome.
        latency_s: seconds from receipt to reply of the last 200 questions.
        last_error: the newest error message; "" before the first.
    """

    def __init__(
        self, answerer: Answerer, *, answer_times: AnswerTimeModel | None = None, max_questions: int = 128
    ) -> None:
        self._answerer = answerer
        self._answer_times = answer_times
        self._max_questions = max_questions
        self._change = threading.Condition()
        self._open: set[Ticket] = set()
        self._queued: list[Ticket] = []  # tickets that wait for the network
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
        """Submit a question. The reply comes through the ticket, also when the question is refused."""
        waits = self._answerer.ahead(ticket.question)
        ticket.size = self._answerer.size(ticket.question)
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
        """Count a malformed question that did not become a ticket."""
        with self._change:
            self.counts[ErrorCode.INVALID_REQUEST.name] += 1
            self.last_error = text

    def cancel(self, ticket: Ticket, text: str = "canceled by the caller") -> None:
        """Reply CANCELED now and stop the work."""
        self._reply(ticket, Answer(error_code=ErrorCode.CANCELED, error_msg=text))

    def cancel_all(self, text: str) -> None:
        """Reply CANCELED to all open questions."""
        for ticket in self.open_tickets():
            self.cancel(ticket, text)

    def open_tickets(self) -> list[Ticket]:
        """Tickets that have not had a reply yet."""
        with self._change:
            return list(self._open)

    def expected_s(self, question: Question) -> float:
        """Expected seconds to answer this question if it were asked now and no other were open."""
        return self._expected(Ticket(question, 0.0, lambda answer: None, size=self._answerer.size(question))).mean_s

    def close(self, reason: str = "the node shuts down") -> None:
        """Cancel all open questions and refuse new ones."""
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
            text = f"{len(self._open)} questions are open, and max_questions is {self._max_questions}"
            return Answer(error_code=ErrorCode.BUSY, error_msg=text)
        others = [t for t in self._open if t is not self._running]
        if not others and self._running is None:
            return None
        late = self._late([*others, ticket])
        if ticket in late:
            return ticket.busy(sum(t.deadline <= ticket.deadline for t in others), late[ticket])
        if late.keys() - self._late(others).keys():
            return Answer(error_code=ErrorCode.BUSY, error_msg="this question would make an earlier one late")
        return None

    def _expected(self, ticket: Ticket) -> ExpectedTime:
        return self._answer_times.expected(*ticket.size) if self._answer_times is not None else ExpectedTime()

    def _late(self, tickets: Iterable[Ticket], caution: float = 1.0) -> dict[Ticket, float]:
        return late_tickets(tickets, self._expected, time.monotonic(), self._running, self._running_since, caution)

    def _give_up_late(self) -> dict[Ticket, Answer]:
        """Find the waiting tickets that can no longer be in time, with their replies. If all are late, one is tried."""
        late = self._late(self._queued, caution=0.0)
        if late and len(late) == len(self._queued):
            del late[min(late, key=by_deadline)]
        return {t: t.busy(sum(o.deadline < t.deadline for o in self._queued), s) for t, s in late.items()}

    # -- work -----------------------------------------------------------------------------------------------------

    def _wait(self, ticket: Ticket) -> None:
        """Wait for the question's observations, then queue it for the network."""
        try:
            ticket.on_stage(WAITING)
            ticket.view = self._answerer.wait_for_view(ticket.question, deadline=ticket.deadline, cancel=ticket.cancel)
            if ticket.view is None:
                return  # the watchdog or a cancel has replied or is about to
        except Exception as error:
            log.exception("a question failed")
            self._reply(ticket, failed(error))
            return
        with self._change:
            if ticket.replied:
                return
            self._queued.append(ticket)
            self._change.notify_all()
        ticket.on_stage(QUEUED)

    def _work(self) -> None:
        """Answer the queued questions, the earliest deadline first, until the queue is closed."""
        while (ticket := self._next()) is not None:
            began = time.monotonic()
            try:
                ticket.on_stage(READING)
                answer = self._answerer.ask(
                    ticket.question,
                    deadline=ticket.deadline,
                    cancel=ticket.cancel,
                    on_text=ticket.on_text,
                    on_stage=ticket.tell_stage,
                    view=ticket.view,
                    hurried=self._hurried,
                )
            except Exception as error:
                # Every question gets a reply. This one says what went wrong.
                log.exception("a question failed")
                answer = failed(error)
            self._reply(ticket, answer)
            self._end_turn(ticket, answer, time.monotonic() - began)

    def _next(self) -> Ticket | None:
        with self._change:
            while not self._queued and not self._closed:
                self._change.wait()
            if self._closed:
                return None
            ticket = min(self._queued, key=by_deadline)
            self._queued.remove(ticket)
            self._running, self._running_since = ticket, time.monotonic()
            return ticket

    def _hurried(self) -> bool:
        """Whether a question waits for the one that is being answered."""
        with self._change:
            return bool(self._queued)

    def _end_turn(self, ticket: Ticket, answer: Answer, seconds: float) -> None:
        cut_short = answer.error_code in (ErrorCode.TIMEOUT, ErrorCode.CANCELED)
        if self._answer_times is not None and (answer.error_code == ErrorCode.NONE or cut_short):
            # What an answer did because there was time does not count: the next one may leave it out.
            needed_s = max(0.0, seconds - self._answerer.spare_s)
            self._answer_times.learn(*ticket.size, needed_s, whole=not cut_short)
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
                due = reply_times(self._open)
                late = [ticket for ticket, at in due if at <= now]
                if late:
                    self._change.release()
                    try:
                        for ticket in late:
                            self._reply(ticket, ticket.timeout())
                    finally:
                        self._change.acquire()
                    continue
                self._change.wait(due[0][1] - now if due else None)

    def _reply(self, ticket: Ticket, answer: Answer) -> None:
        """Send the answer unless a reply was sent before. Setting `cancel` stops work that is still running."""
        with self._change:
            if ticket.replied:
                return
            if answer.error_code == ErrorCode.NONE and time.monotonic() > ticket.deadline - DEADLINE_MARGIN_S:
                answer = ticket.timeout()  # the watchdog was held up
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
