"""Admission control: decides which observations are queued, and counts each refusal by its reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from salmonn_node.ingest.status import SourceStatus
from salmonn_node.stream.frame_sampler import FrameFate, FrameSampler
from salmonn_node.stream.observations import SECOND_NS, AudioChunk, AudioSpan, EncodedFrame, Frame, Pose
from salmonn_node.stream.session import SessionClock, StampFate

Observation = Frame | EncodedFrame | AudioChunk | Pose
# The result for one observation: QUEUED, TAKEN, or the reason why it was refused. Refusals are counted by reason.
Admission = str
QUEUED, TAKEN = "queued", "taken"
QUEUE_FULL, DEVICE_FAILED = "queue_full", "device_failed"
POSE_SOURCE = "pose"
QUIET_SOURCE_S = 2.0  # a view does not wait for a silent source that lags this far behind the newest stamp
QUIET_STREAM_S = 1.0  # messages may wait this long (wall time) in the middleware behind those of other sources
ARRIVAL_STEP_S = 0.5  # a longer pause between two messages counts as this: perhaps the process itself was held up


def source_of(observation: Observation) -> str:
    """Name of the camera or microphone; all poses have one name."""
    return POSE_SOURCE if isinstance(observation, Pose) else observation.source


def kind_of(observation: Observation) -> str:
    """Kind of an observation: "frame", "sound" or "pose"; each kind has its own bound in the queue."""
    if isinstance(observation, Pose):
        return "pose"
    return "sound" if isinstance(observation, AudioChunk) else "frame"


class AdmissionControl:
    """Decides by stamp, source and queue length whether to queue an observation. The caller must hold the queue's lock.

    Args:
        frame_rate_hz: frames taken per second and camera.
        is_full: says whether the queue has no room for another observation of a kind.
        on_session: called with the number of a new session before any observation of that session is queued.
        now_s: the current time (time.monotonic).

    Attributes:
        clock: the session clock.
        sources: counters by source, in order of appearance.
        closed: the reason why every observation is refused; "" while observations are admitted.
        received: number of observations offered so far.
        clock_steps: number of backward steps of the ROS clock that were too small for a new session.
        last_arrival_s: time (time.monotonic) at which the last observation was offered.
    """

    def __init__(
        self,
        frame_rate_hz: float,
        is_full: Callable[[str], bool],
        on_session: Callable[[int], None],
        *,
        now_s: float,
    ) -> None:
        self.clock = SessionClock()
        self.sources: dict[str, SourceStatus] = {}
        self.closed = ""
        self.received = 0
        self.clock_steps = 0
        self.last_arrival_s = now_s
        self._sampler = FrameSampler(frame_rate_hz)
        self._is_full = is_full
        self._on_session = on_session
        self._heard_s = 0.0  # clock of arrivals: wall time without long pauses, see ARRIVAL_STEP_S

    def admit(self, observation: Observation, now_s: float) -> Admission:
        """Decide about one observation that arrived at `now_s` (time.monotonic).

        Returns:
            QUEUED, or the reason of the refusal, which is counted.
        """
        self._heard_s += min(now_s - self.last_arrival_s, ARRIVAL_STEP_S)
        self.last_arrival_s = now_s
        self.received += 1
        source = source_of(observation)
        status = self.sources.setdefault(source, SourceStatus())
        status.received += 1
        status.heard_s = self._heard_s
        admission = self.closed or self._decide(observation, source, status)
        if admission == QUEUED:
            status.queued += 1
        else:
            status.drops[admission] += 1
        return admission

    def refuse(self, source: str, reason: str) -> None:
        """Count a message that could not be converted to an observation."""
        status = self.sources.setdefault(source, SourceStatus())
        status.received += 1
        status.drops[reason] += 1

    def restart(self) -> None:
        """Start a new session. The next stamp becomes its first."""
        self.clock.restart()
        self._start_session()

    def _decide(self, observation: Observation, source: str, status: SourceStatus) -> Admission:
        stamp_ns = observation.stamp_ns
        placed = self.clock.offer(source, stamp_ns)
        status.clock = self.clock.offset_of(source)
        if placed is StampFate.FROZEN and not status.clock:
            status.clock = "all its messages have the same stamp: its driver does not set stamps"
        if placed is StampFate.NEW_SESSION:
            self._start_session()
        elif placed is not StampFate.OK:
            return placed.value
        end_ns = stamp_ns
        if isinstance(observation, AudioChunk) and observation.rate_hz > 0:
            end_ns += len(observation.samples) * SECOND_NS // observation.rate_hz
        if status.last_ns:
            status.longest_gap_s = max(status.longest_gap_s, (stamp_ns - status.last_ns) / SECOND_NS)
        status.newest_ns = max(status.newest_ns, stamp_ns)
        status.last_ns = max(status.last_ns, end_ns)
        kind = kind_of(observation)
        if kind == "frame":
            sampled = self._sampler.offer(source, stamp_ns)
            if sampled is not FrameFate.TAKEN:
                return sampled.value
        return QUEUE_FULL if self._is_full(kind) else QUEUED

    def _start_session(self) -> None:
        self._on_session(self.clock.number)
        self._sampler.reset()
        for status in self.sources.values():
            status.newest_ns, status.last_ns, status.longest_gap_s = 0, 0, 0.0

    # -- how far the stream has come ------------------------------------------------------------------------------

    def passed(self, stamp_ns: int, *, lag_s: float = QUIET_STREAM_S) -> bool:
        """Whether every active source has sent a stamp at or after `stamp_ns`.

        The end of a piece of sound does not count, because the next piece may have the same stamp or, with jitter, an
        earlier one. A source may lag because it fell silent, or because its messages wait in the middleware behind
        those of other sources. The second happens when a bag is played fast.

        Args:
            stamp_ns: the stamp to compare with.
            lag_s: how long messages may wait in the middleware; 0 when there is no middleware.
        """
        newest = self.newest_heard_ns
        late = newest - round(QUIET_SOURCE_S * SECOND_NS)
        silent = self._heard_s - lag_s
        return newest >= stamp_ns and all(
            s.newest_ns >= stamp_ns or (s.last_ns < late and s.heard_s <= silent) for s in self.sources.values()
        )

    @property
    def complete_ns(self) -> int:
        """Stamp up to which every active camera and microphone has been observed; 0 before the first observation.

        When no source is active, for example after a restart, nothing is missing up to the newest stamp.
        """
        newest = self.clock.newest_ns
        late = newest - round(QUIET_SOURCE_S * SECOND_NS)
        heard = [s.last_ns for name, s in list(self.sources.items()) if name != POSE_SOURCE and s.last_ns >= late]
        return min((*heard, newest))

    @property
    def newest_heard_ns(self) -> int:
        """Newest stamp over all sources, including the ends of sound; 0 before the first."""
        return max((s.last_ns for s in self.sources.values()), default=0)

    # -- state ----------------------------------------------------------------------------------------------------

    def to_state(self) -> dict[str, Any]:
        """State of the clock and the sampler as JSON values, for `restore`."""
        return {"clock": self.clock.to_state(), "sampler": self._sampler.to_state()}

    def restore(self, state: dict[str, Any], session: int) -> None:
        """Restore the state from `to_state`, for an observer that had reached `session`.

        Raises:
            KeyError: a value is missing.
        """
        if state["clock"]["number"] == session:
            self.clock.restore(state["clock"])
        else:  # the start of the next session was still in the queue and was lost with it
            self.clock.restart()
            self.clock.number = session
        self._sampler.restore(state["sampler"])

    def retake(self, observation: Frame | AudioSpan) -> None:
        """Note an observation that an earlier process admitted."""
        if isinstance(observation, Frame):
            self.clock.offer(observation.source, observation.stamp_ns)
            self._sampler.offer(observation.source, observation.stamp_ns)
        else:
            self.clock.offer(observation.source, observation.start_ns)

    def enter_session(self, number: int) -> None:
        """Continue a session that an earlier process began."""
        self.clock.restart()
        self.clock.number = number
        self._sampler.reset()
