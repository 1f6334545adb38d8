"""The session clock: time never runs backward inside a session; a confirmed jump starts a new one."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from salmonn_node.stream.observations import SECOND_NS


class StampFate(enum.StrEnum):
    """What a stamp means for the session; every value but OK and NEW_SESSION is a reason that is counted."""

    OK = "ok"
    NEW_SESSION = "new_session"
    STAMP_ZERO = "stamp_zero"
    OUT_OF_ORDER = "stamp_out_of_order"
    FAR_BEHIND = "stamp_far_behind"
    FAR_AHEAD = "stamp_far_ahead"
    OLD_SESSION = "stamp_of_old_session"


@dataclass
class SessionClock:
    """Decides for each observation whether its stamp belongs to the running session.

    Within a source stamps must not decrease. A step back of at most `max_back_s` is an out-of-order message. A longer
    one, or a step of more than `max_ahead_s` beyond the newest stamp of all sources, is taken for a stray stamp and
    refused until the next message of that source confirms it: a confirmed step back starts a new session (a bag that
    loops, a simulation that was reset), a confirmed step ahead goes on in the same one (the robot slept). After a new
    session began, late messages of the old one are refused.

    Attributes:
        number: counts the sessions, from 0.
        start_ns: first stamp of the session; 0 before it.
        newest_ns: newest stamp of the session over all sources; 0 before the first.
    """

    max_back_s: float = 1.0
    max_ahead_s: float = 60.0
    number: int = 0
    start_ns: int = 0
    newest_ns: int = 0
    _last_ns: dict[str, int] = field(default_factory=dict)
    _old_ns: dict[str, int] = field(default_factory=dict)
    _suspect_ns: dict[str, int] = field(default_factory=dict)

    def offer(self, source: str, stamp_ns: int) -> StampFate:
        """Place `stamp_ns` of `source`; a refused stamp changes nothing but the suspicion that the next may confirm."""
        if stamp_ns <= 0:
            return StampFate.STAMP_ZERO
        if self.newest_ns == 0:
            return self._accept(source, stamp_ns)
        if self._is_of_old_session(source, stamp_ns):
            return StampFate.OLD_SESSION
        last_ns = self._last_ns.get(source)
        if last_ns is None and self.newest_ns - stamp_ns > self._ahead_ns:
            return StampFate.FAR_BEHIND  # a source whose clock is wrong must not end the others' session
        if last_ns is not None and stamp_ns < last_ns:
            if last_ns - stamp_ns <= self.max_back_s * SECOND_NS:
                return StampFate.OUT_OF_ORDER
            if not self._confirmed(source, stamp_ns):
                return StampFate.FAR_BEHIND
            self.restart()
            self._accept(source, stamp_ns)
            return StampFate.NEW_SESSION
        if stamp_ns - self.newest_ns > self._ahead_ns and not self._confirmed(source, stamp_ns):
            return StampFate.FAR_AHEAD
        return self._accept(source, stamp_ns)

    def restart(self) -> None:
        """Start a new session, as when the ROS clock jumped back; the next stamp opens it."""
        self._old_ns = dict(self._last_ns)
        self._last_ns.clear()
        self._suspect_ns.clear()
        self.number += 1
        self.start_ns = self.newest_ns = 0

    def to_state(self) -> dict[str, Any]:
        """JSON values from which `restore` continues; a stamp under suspicion is left out.

        The keys are the stored format. They stay as they are when a field of this class is renamed.
        """
        return {
            "number": self.number,
            "start_ns": self.start_ns,
            "newest_ns": self.newest_ns,
            "_last_ns": dict(self._last_ns),
            "_old_ns": dict(self._old_ns),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `to_state` gave; raises KeyError when a value is missing."""
        self.number, self.start_ns, self.newest_ns = state["number"], state["start_ns"], state["newest_ns"]
        self._last_ns, self._old_ns = dict(state["_last_ns"]), dict(state["_old_ns"])
        self._suspect_ns.clear()

    @property
    def _ahead_ns(self) -> int:
        return round(self.max_ahead_s * SECOND_NS)

    def _accept(self, source: str, stamp_ns: int) -> StampFate:
        self._suspect_ns.pop(source, None)
        self._last_ns[source] = stamp_ns
        self.start_ns = self.start_ns or stamp_ns
        self.newest_ns = max(self.newest_ns, stamp_ns)
        return StampFate.OK

    def _confirmed(self, source: str, stamp_ns: int) -> bool:
        """Whether the source's last message was refused at about this stamp; else remember this one."""
        suspect_ns = self._suspect_ns.get(source)
        self._suspect_ns[source] = stamp_ns
        return suspect_ns is not None and 0 <= stamp_ns - suspect_ns <= self._ahead_ns

    def _is_of_old_session(self, source: str, stamp_ns: int) -> bool:
        """Whether this is a late message of the session before: nearer to its end than to the new session."""
        if source in self._last_ns or source not in self._old_ns:
            return False
        return abs(stamp_ns - self._old_ns[source]) < abs(stamp_ns - self.newest_ns)
