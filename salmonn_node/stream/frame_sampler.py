"""Which camera frames are looked at: one per period and source, by header stamp alone, so that replay equals live."""

from __future__ import annotations

import enum
from typing import Any

from salmonn_node.stream.observations import SECOND_NS

# A camera that runs at the sampling rate itself jitters around the grid; without slack each early frame costs a period.
MAX_SLACK = 0.1


class FrameFate(enum.StrEnum):
    """What the sampler decided about a frame; every value but TAKEN is a reason that is counted."""

    TAKEN = "taken"
    NOT_SAMPLED = "not_sampled"
    STAMP_ZERO = "stamp_zero"
    OUT_OF_ORDER = "stamp_out_of_order"


class FrameSampler:
    """Takes the first frame of each period of each source.

    The grid of a source starts at its first frame. A frame opens the next period when it comes at most half a frame
    interval, and never more than MAX_SLACK periods, before the grid; the first frame of each period is taken.
    The decision depends on the stamps of that source alone: not on arrival times, message boundaries or other sources.
    """

    def __init__(self, rate_hz: float = 1.0) -> None:
        """Sample at `rate_hz` frames per second; raises ValueError unless it is positive."""
        if not rate_hz > 0:
            raise ValueError(f"rate_hz must be positive, got {rate_hz}")
        self.period_ns = round(SECOND_NS / rate_hz)
        self._max_slack_ns = round(self.period_ns * MAX_SLACK)
        self._first_ns: dict[str, int] = {}
        self._last_ns: dict[str, int] = {}
        self._period: dict[str, int] = {}

    def offer(self, source: str, stamp_ns: int) -> FrameFate:
        """Decide about the frame of `source` stamped `stamp_ns`; a refused frame leaves the state unchanged."""
        if stamp_ns <= 0:
            return FrameFate.STAMP_ZERO
        first_ns = self._first_ns.get(source)
        if first_ns is None:
            self._first_ns[source] = self._last_ns[source] = stamp_ns
            self._period[source] = 0
            return FrameFate.TAKEN
        if stamp_ns <= self._last_ns[source]:
            return FrameFate.OUT_OF_ORDER
        slack_ns = min(self._max_slack_ns, (stamp_ns - self._last_ns[source]) // 2)
        self._last_ns[source] = stamp_ns
        period = (stamp_ns - first_ns + slack_ns) // self.period_ns
        if period <= self._period[source]:
            return FrameFate.NOT_SAMPLED
        self._period[source] = period
        return FrameFate.TAKEN

    def reset(self) -> None:
        """Forget all sources: the next frame of each is taken."""
        self._first_ns.clear()
        self._last_ns.clear()
        self._period.clear()

    def to_state(self) -> dict[str, Any]:
        """JSON values from which `restore` continues. The keys are the stored format, not names of this class."""
        return {"_first_ns": dict(self._first_ns), "_last_ns": dict(self._last_ns), "_period": dict(self._period)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `to_state` gave; raises KeyError when a value is missing."""
        self._first_ns, self._last_ns = dict(state["_first_ns"]), dict(state["_last_ns"])
        self._period = dict(state["_period"])
