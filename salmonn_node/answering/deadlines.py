"""Earliest deadline first: which questions would be late, and when each TIMEOUT must be out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from salmonn_node.answering.answer_time import Expected
from salmonn_node.answering.ticket import Ticket

# A reply goes out this long before its deadline at the latest, so that it arrives in time. Where many are due at once,
# each goes out earlier by the time that the replies behind it take.
DEADLINE_MARGIN_S = 0.02
REPLY_S = 0.001


def by_deadline(ticket: Ticket) -> tuple[float, float]:
    """Sort key: the earliest deadline first, among equals the first that came."""
    return ticket.deadline, ticket.received


def late_tickets(
    tickets: Iterable[Ticket],
    expected: Callable[[Ticket], Expected],
    now_s: float,
    running: Ticket | None = None,
    running_since_s: float = 0.0,
    caution: float = 1.0,
) -> dict[Ticket, float]:
    """Tickets that would not be answered in time, with the seconds from now that each would need.

    They are answered in the order of their deadlines, behind the one that is being answered. A late one is left out,
    and those behind it move up. Deviations add up as those of independent times do.

    Args:
        tickets: those that wait.
        expected: the time that an answer takes.
        now_s: time.monotonic().
        running: the one that is being answered, if any.
        running_since_s: when that began.
        caution: how many deviations are left besides the mean.
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
    """When TIMEOUT must be replied at the latest (time.monotonic), one after the other, the earliest first."""
    due: list[tuple[Ticket, float]] = []
    at = math.inf
    for ticket in sorted(tickets, key=by_deadline, reverse=True):
        at = min(ticket.deadline - DEADLINE_MARGIN_S, at - REPLY_S)
        due.append((ticket, at))
    return due[::-1]
