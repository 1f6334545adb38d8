"""Earliest deadline first: which questions would be late, and when each TIMEOUT must be sent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from salmonn_node.answering.answer_time import ExpectedTime
from salmonn_node.answering.ticket import Ticket

# A reply is sent at the latest this long before its deadline, so that it arrives in time. If many are due at once,
# each is sent REPLY_S before the next.
DEADLINE_MARGIN_S = 0.02
REPLY_S = 0.001


def by_deadline(ticket: Ticket) -> tuple[float, float]:
    """Sort key: the earliest deadline first; among equal deadlines, the first to arrive."""
    return ticket.deadline, ticket.received


def late_tickets(
    tickets: Iterable[Ticket],
    expected: Callable[[Ticket], ExpectedTime],
    now_s: float,
    running: Ticket | None = None,
    running_since_s: float = 0.0,
    caution: float = 1.0,
) -> dict[Ticket, float]:
    """Find the tickets that would be answered late, with the seconds from now that each would need.

    The running ticket is answered first, then the others in the order of their deadlines. A late ticket is left out,
    and the tickets after it move up. Deviations add in quadrature, as those of independent times do.

    Args:
        tickets: the waiting tickets.
        expected: returns the expected duration of an answer.
        now_s: time.monotonic().
        running: the ticket that is being answered, if any.
        running_since_s: time.monotonic() at which it started.
        caution: how many deviations to add to the mean.
    """
    needed_s = square = 0.0
    if running is not None:
        time_of_running = expected(running)
        needed_s = max(0.0, time_of_running.mean_s - (now_s - running_since_s))
        square = time_of_running.deviation_s**2
    late = {}
    for ticket in sorted(tickets, key=by_deadline):
        own = expected(ticket)
        with_own_s = needed_s + own.mean_s + caution * math.sqrt(square + own.deviation_s**2)
        if now_s + with_own_s > ticket.deadline - DEADLINE_MARGIN_S:
            late[ticket] = with_own_s
        else:
            needed_s, square = needed_s + own.mean_s, square + own.deviation_s**2
    return late


def reply_times(tickets: Iterable[Ticket]) -> list[tuple[Ticket, float]]:
    """The latest time (time.monotonic) at which to send TIMEOUT to each ticket, the earliest first."""
    due: list[tuple[Ticket, float]] = []
    at = math.inf
    for ticket in sorted(tickets, key=by_deadline, reverse=True):
        at = min(ticket.deadline - DEADLINE_MARGIN_S, at - REPLY_S)
        due.append((ticket, at))
    return due[::-1]
