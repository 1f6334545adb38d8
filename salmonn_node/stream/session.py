"""The session clock: the majority of sources owns time, and time never runs backward inside a session."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from salmonn_node.stream.clock_offsets import ClockOffsets
from salmonn_node.stream.observations import SECOND_NS

FROZEN_NS = 2 * SECOND_NS  # a source that repeats one stamp while others advance by this much sets no stamps
ALONE_NS = SECOND_NS  # a source that jumped is believed after this much time, if no other source contradicts it


class StampFate(enum.StrEnum):
    """What a stamp means for the session. Every value except OK and NEW_SESSION is a reason for refusal."""

    OK = "ok"
    NEW_SESSION = "new_session"
    STAMP_ZERO = "stamp_zero"
    OUT_OF_ORDER = "stamp_out_of_order"
    FROZEN = "stamp_frozen"
    FAR_BEHIND = "stamp_far_behind"
    FAR_AHEAD = "stamp_far_ahead"
    OLD_SESSION = "stamp_of_old_session"


@dataclass
class _Elsewhere:
    """The refused stamps of a source: the first, the latest, and how many came in a row."""

    first_ns: int
    latest_ns: int
    count: int = 1


@dataclass
class SessionClock:
    """Decides for each observation whether its stamp belongs to the running session.

    The stamps of a source must not decrease. A step back of at most `max_back_s` is an out-of-order message. Three
    kinds of stamps are off and are refused:

    - a longer step back;
    - a step of more than `max_ahead_s` beyond the newest stamp of all sources;
    - the first stamp of a source, if it is more than `max_first_s` away from that newest stamp.

    The majority of sources sets the time. The session moves when more sources agree on another time than still send
    at this one. A single source that jumped needs two messages, and 1 s of them if other sources have been heard. A
    move back starts a new session: a bag loops, or a simulation was reset. A move ahead continues the session: the
    robot slept. After a new session has begun, late messages of the old one are refused. Only stamps and their order
    count, never the wall clock.

    Attributes:
        number: counts the sessions, from 0.
        start_ns: first stamp of the session; 0 before it.
        newest_ns: newest stamp of the session over all sources; 0 before the first.
    """

    max_back_s: float = 1.0
    max_ahead_s: float = 60.0
    max_first_s: float = 10.0
    number: int = 0
    start_ns: int = 0
    newest_ns: int = 0
    _last_ns: dict[str, int] = field(default_factory=dict)
    _old_ns: dict[str, int] = field(default_factory=dict)
    _elsewhere: dict[str, _Elsewhere] = field(default_factory=dict)
    _here: set[str] = field(default_factory=set)  # sources that spoke since one went elsewhere
    _offsets: ClockOffsets = field(default_factory=ClockOffsets)

    def offer(self, source: str, stamp_ns: int) -> StampFate:
        """Decide about `stamp_ns` of `source`. A refused stamp changes nothing, but it is remembered as a suspicion."""
        if stamp_ns <= 0:
            return StampFate.STAMP_ZERO
        if self.newest_ns == 0:
            return self._accept(source, stamp_ns)
        if self._is_of_old_session(source, stamp_ns):
            self._offsets.refuse(source, stamp_ns - self.newest_ns)
            return StampFate.OLD_SESSION
        last_ns = self._last_ns.get(source)
        if last_ns is not None and last_ns - self.max_back_s * SECOND_NS <= stamp_ns < last_ns:
            return StampFate.OUT_OF_ORDER
        if stamp_ns == last_ns and self.newest_ns - stamp_ns > FROZEN_NS:
            return StampFate.FROZEN
        unknown = last_ns is None or source in self._elsewhere
        ahead_ns = round((self.max_first_s if unknown else self.max_ahead_s) * SECOND_NS)
        behind = stamp_ns < (last_ns or 0) or (unknown and stamp_ns < self.newest_ns - ahead_ns)
        if not behind and stamp_ns <= self.newest_ns + ahead_ns:
            return self._accept(source, stamp_ns)
        if not self._moves(source, stamp_ns):
            self._offsets.refuse(source, stamp_ns - self.newest_ns)
            return StampFate.FAR_BEHIND if behind else StampFate.FAR_AHEAD
        if behind or not any(name in self._last_ns for name in self._elsewhere):
            self.restart()
            self._accept(source, stamp_ns)
            return StampFate.NEW_SESSION
        for name in self._elsewhere:
            self._offsets.forgive(name)
        # Who did not come along is judged by its next stamp, as a newcomer.
        self._last_ns = {name: ns for name, ns in self._last_ns.items() if name in self._elsewhere}
        return self._accept(source, stamp_ns)

    def offset_of(self, source: str) -> str:
        """What is wrong with a source's clock, in words; "" when nothing is known to be."""
        return self._offsets.of(source)

    def restart(self) -> None:
        """Start a new session, for example when the ROS clock jumped back. The next stamp opens it."""
        self._old_ns = dict(self._last_ns)
        self._last_ns.clear()
        self._elsewhere.clear()
        self._here.clear()
        self._offsets.clear()
        self.number += 1
        self.start_ns = self.newest_ns = 0

    def to_state(self) -> dict[str, Any]:
        """Return JSON values from which `restore` continues. Suspicions are left out.

        The keys are the stored format. Do not change them when you rename a field of this class.
        """
        return {
            "number": self.number,
            "start_ns": self.start_ns,
            "newest_ns": self.newest_ns,
            "_last_ns": dict(self._last_ns),
            "_old_ns": dict(self._old_ns),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what `to_state` returned. Raises KeyError if a value is missing."""
        self.number, self.start_ns, self.newest_ns = state["number"], state["start_ns"], state["newest_ns"]
        self._last_ns, self._old_ns = dict(state["_last_ns"]), dict(state["_old_ns"])
        self._elsewhere.clear()
        self._here.clear()

    def _accept(self, source: str, stamp_ns: int) -> StampFate:
        self._elsewhere.pop(source, None)
        self._offsets.accept(source, stamp_ns)
        if self._elsewhere:
            self._here.add(source)
        else:
            self._here.clear()
        self._last_ns[source] = stamp_ns
        self.start_ns = self.start_ns or stamp_ns
        self.newest_ns = max(self.newest_ns, stamp_ns)
        return StampFate.OK

    def _moves(self, source: str, stamp_ns: int) -> bool:
        """Remember that a source's stamp is off. Return whether the session moves there."""
        near_ns = round(self.max_ahead_s * SECOND_NS)
        place = self._elsewhere.get(source)
        if place is not None and 0 <= stamp_ns - place.latest_ns <= near_ns:
            place.latest_ns, place.count = stamp_ns, place.count + 1
        else:
            place = self._elsewhere[source] = _Elsewhere(stamp_ns, stamp_ns)
        self._here.discard(source)
        if place.count < 2:
            return False
        together = [n for n, p in self._elsewhere.items() if p.count > 1 and abs(p.latest_ns - stamp_ns) <= near_ns]
        if not any(name in self._last_ns for name in together):
            return len(together) > len(self._last_ns)  # newcomers: all sources of the session speak against them
        others = self._last_ns.keys() - set(together)
        sure = not others or len(together) > 1 or stamp_ns - place.first_ns >= ALONE_NS
        return sure and len(together) > len(self._here)

    def _is_of_old_session(self, source: str, stamp_ns: int) -> bool:
        """Whether this is a late message of the previous session: its stamp is nearer to that session's end."""
        if source in self._last_ns or source not in self._old_ns:
            return False
        return abs(stamp_ns - self._old_ns[source]) < abs(stamp_ns - self.newest_ns)
