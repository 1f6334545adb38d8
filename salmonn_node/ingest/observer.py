"""The way in: observations are put in a session, sampled, queued and taken in by one worker; drops are counted."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from salmonn_node.engines.reasons import is_device_error
from salmonn_node.ingest.intake import TAKEN, Intake, Recorder
from salmonn_node.ingest.status import ObserverStatus, SourceStatus
from salmonn_node.ingest.view_requests import Look
from salmonn_node.memory.evidence_index import EvidenceIndex
from salmonn_node.stream.frame_sampler import FrameFate, FrameSampler
from salmonn_node.stream.observations import SECOND_NS, AudioChunk, EncodedFrame, Frame, Pose
from salmonn_node.stream.session import SessionClock, StampFate

if TYPE_CHECKING:
    from salmonn_node.memory.memory_view import MemoryView
    from salmonn_node.memory.stream_memory import StreamMemory
    from salmonn_node.model.video_salmonn_s import VideoSalmonnS

Observation = Frame | EncodedFrame | AudioChunk | Pose
POSE_SOURCE = "pose"
# A minute of sound in 20 ms chunks, a minute of sampled frames of four cameras, a minute of poses at 50 Hz.
CAPACITY = {"frame": 240, "sound": 3_000, "pose": 3_000}
QUIET_SOURCE_S = 2.0  # a source that lags so far behind the newest stamp is not waited for
DEVICE_FAILED = "device_failed"
QUIET_STREAM_S = 1.0  # nor is any source, when nothing at all has arrived for so long (wall time)
ARRIVAL_STEP_S = 0.5  # a pause between two messages counts for no more: a process that was held up missed nothing
LOOK_AGAIN_S = 0.2  # so often a waiting look sees whether it was cancelled, and whether the stream is quiet

log = logging.getLogger(__name__)


class Observer:
    """Takes observations into a memory, on its own thread, or with `inline=True` in the caller's.

    `submit` may be called from any thread and returns at once. Order is that of the calls. Everything that `view`
    shows is consistent: it lies between two observations.

    Args:
        model: the network.
        memory: a memory to go on with; None makes a new one.
        evidence: the index to write to; None keeps one in memory.
        frame_rate_hz: frames looked at per second and camera.
        record: called with each observation that the memory takes in, before it does (the journal).
        on_session: called on the worker when a new session begins, with the old memory, before it is let go.
        memory_name: stem of `memory_id`.
        inline: no thread; `submit` returns when the observation has been taken in.
        capacity: bounds of the queue by kind of observation.

    Attributes:
        failure: the device's error after which nothing is taken in any more; None while all is well.
    """

    def __init__(
        self,
        model: VideoSalmonnS,
        *,
        memory: StreamMemory | None = None,
        evidence: EvidenceIndex | None = None,
        frame_rate_hz: float = 1.0,
        record: Recorder | None = None,
        on_session: Callable[[int, StreamMemory], None] | None = None,
        memory_name: str = "memory",
        inline: bool = False,
        capacity: dict[str, int] | None = None,
    ) -> None:
        self.model = model
        self.evidence = evidence or EvidenceIndex(":memory:")
        self.memory_name = memory_name
        self.clock = SessionClock()
        self.sampler = FrameSampler(frame_rate_hz)
        self.intake = Intake(model, memory or model.new_memory(), self.evidence, record)
        self.on_session = on_session
        self._inline = inline
        self._capacity = {**CAPACITY, **(capacity or {})}
        self._sources: dict[str, SourceStatus] = {}
        self._queue: deque[Observation | Look | int] = deque()  # an int is the number of the session that begins
        self._looks: list[Look] = []  # those not made yet, queued or waiting for the stream to pass their end
        self._waiting: Counter[str] = Counter()
        self._submitted = self._done = 0
        self._received = 0
        self._last_submit_s = time.monotonic()
        self._heard_s = 0.0  # clock of arrivals: wall time, without the pauses in which nobody could be heard
        self._passed_ns = 0  # the latest end of a view of this session
        self._session = 0
        self._entry = threading.Condition()  # guards the clock, the sampler, the queue and the counters
        self._memory = threading.Lock()  # held while one observation is taken in, and while a view is made
        self._stopping = False
        self.failure: Exception | None = None
        self._worker: threading.Thread | None = None
        if not inline:
            self._worker = threading.Thread(target=self._work, name="observer", daemon=True)
            self._worker.start()

    # -- in -------------------------------------------------------------------------------------------------------

    def submit(self, observation: Observation) -> str:
        """Accept or refuse an observation; returns "queued" (inline: "taken") or the reason, which is counted."""
        source = POSE_SOURCE if isinstance(observation, Pose) else observation.source
        with self._entry:
            now = time.monotonic()
            self._heard_s += min(now - self._last_submit_s, ARRIVAL_STEP_S)
            self._last_submit_s = now
            self._received += 1
            status = self._sources.setdefault(source, SourceStatus())
            status.received += 1
            status.heard_s = self._heard_s
            before = self._submitted
            fate = self._admit(observation, source, status)
            if fate != "queued":
                status.drops[fate] += 1
            self._release_looks(self.passed)
            if self._submitted != before:  # a frame that is not sampled wakes nobody
                self._entry.notify_all()
        if self._inline and fate == "queued":
            self._take_all()
            return self._last_fate
        return fate

    def refuse(self, source: str, reason: str) -> None:
        """Count a message that could not be made an observation of."""
        with self._entry:
            status = self._sources.setdefault(source, SourceStatus())
            status.received += 1
            status.drops[reason] += 1

    def restart(self) -> None:
        """Begin a new session, as when the ROS clock jumped back: what follows goes into an empty memory."""
        with self._entry:
            self.clock.restart()
            self._begin_session()
            self._entry.notify_all()
        if self._inline:
            self._take_all()

    def _admit(self, observation: Observation, source: str, status: SourceStatus) -> str:
        if self.failure is not None:
            return DEVICE_FAILED
        stamp_ns = observation.stamp_ns
        fate = self.clock.offer(source, stamp_ns)
        if fate is StampFate.NEW_SESSION:
            self._begin_session()
        elif fate is not StampFate.OK:
            return fate.value
        end_ns = stamp_ns
        if isinstance(observation, AudioChunk) and observation.rate_hz > 0:
            end_ns += len(observation.samples) * SECOND_NS // observation.rate_hz
        if status.last_ns:
            status.longest_gap_s = max(status.longest_gap_s, (stamp_ns - status.last_ns) / SECOND_NS)
        status.newest_ns = max(status.newest_ns, stamp_ns)
        status.last_ns = max(status.last_ns, end_ns)
        kind = "pose" if isinstance(observation, Pose) else "sound" if isinstance(observation, AudioChunk) else "frame"
        if kind == "frame":
            sampled = self.sampler.offer(source, stamp_ns)
            if sampled is not FrameFate.TAKEN:
                return sampled.value
        if self._waiting[kind] >= self._capacity[kind]:
            return "queue_full"
        self._waiting[kind] += 1
        status.queued += 1
        status.late += stamp_ns <= self._passed_ns
        self._enqueue(observation)
        return "queued"

    def _begin_session(self) -> None:
        self._release_looks(lambda _: True)  # what they wait for will never come
        self.sampler.reset()
        for status in self._sources.values():
            status.newest_ns, status.last_ns, status.longest_gap_s = 0, 0, 0.0
        self._passed_ns = 0
        self._enqueue(self.clock.number)

    def _release_looks(self, reached: Callable[[int], bool]) -> None:
        """Let the views be made whose window the stream has passed, right here in the order of observations."""
        for look in self._looks:
            if look not in self._queue and reached(look.until_ns):
                self._passed_ns = max(self._passed_ns, look.until_ns)
                self._enqueue(look)

    def _enqueue(self, item: Observation | Look | int) -> None:
        self._queue.append(item)
        self._submitted += 1

    # -- the worker -----------------------------------------------------------------------------------------------

    _last_fate = TAKEN

    def _work(self) -> None:
        _be_patient()
        while True:
            with self._entry:
                while self._next() is None and not self._stopping:
                    self._entry.wait()
                if self._stopping:
                    return
            self._take_next()

    def _take_all(self) -> None:
        while self._next() is not None:
            self._take_next()

    def _next(self) -> int | None:
        """Position in the queue of what comes next; what is stamped after a look's end waits for the look.

        Poses do not wait: they change no token, and say more of where earlier observations were made.
        """
        held_ns = min((look.until_ns for look in self._looks if look.until_ns), default=0)
        for position, item in enumerate(self._queue):
            if not held_ns or isinstance(item, (int, Look, Pose)) or item.stamp_ns <= held_ns:
                return position
        return None

    def _take_next(self) -> None:
        with self._entry:
            position = self._next()
            if position is None:
                return  # a look came in between
            item = self._queue[position]
            del self._queue[position]
            if not isinstance(item, (int, Look)):
                kind = "pose" if isinstance(item, Pose) else "sound" if isinstance(item, AudioChunk) else "frame"
                self._waiting[kind] -= 1
        if isinstance(item, Look):
            self._make(item)
            return
        try:
            with self._memory:
                if isinstance(item, int):
                    self._start_session(item)
                else:
                    self._last_fate = self.intake.take(item)
        except Exception as error:
            if is_device_error(error):
                # A device that failed stays failed: going on elsewhere would change the arithmetic in mid-stream.
                self._fail(error)
                if self._inline:
                    raise
            else:
                # One bad observation must not end the stream; it is counted as encode_failed.
                self._last_fate = "encode_failed"
                log.exception("an observation could not be taken in")
        with self._entry:
            self._done += 1
            self._entry.notify_all()

    def _fail(self, error: Exception) -> None:
        """Take nothing more in; whoever waits stops waiting, and the owner finds `failure`."""
        self._last_fate = DEVICE_FAILED
        log.critical("the device failed, nothing more is taken in: %s", error)
        with self._entry:
            self.failure = error
            self._stopping = True
            self._entry.notify_all()

    def _make(self, look: Look) -> None:
        try:
            look.view = self.view(look.after_ns, look.before_ns, look.sources)
        except Exception as error:
            # Whoever waits for it is told; the stream goes on.
            log.exception("a view could not be made")
            look.failure = f"{type(error).__name__}: {error}"
        with self._entry:
            # Looks at the same window with no observation between them are one view: many may wait for one moment.
            while (position := self._next()) is not None:
                twin = self._queue[position]
                if not isinstance(twin, Look) or twin.window != look.window:
                    break
                del self._queue[position]
                twin.view, twin.failure = look.view, look.failure
                self._settle(twin)
            self._settle(look)
            self._entry.notify_all()

    def _settle(self, look: Look) -> None:
        look.done.set()
        if look in self._looks:
            self._looks.remove(look)
        self._done += 1

    def _start_session(self, number: int) -> None:
        if self.on_session is not None:
            self.on_session(number, self.intake.memory)
        self.intake.start_session(self.model.new_memory())
        self._session = number

    # -- waiting --------------------------------------------------------------------------------------------------

    def drain(self, deadline: float | None = None) -> bool:
        """Wait until all submitted so far has been taken in; False when `deadline` (time.monotonic) came first."""
        with self._entry:
            target = self._submitted
            return self._wait(lambda: self._done >= target, deadline)

    def look(
        self,
        after_ns: int = 0,
        before_ns: int = 0,
        sources: Sequence[str] = (),
        *,
        deadline: float,
        cancel: threading.Event | None = None,
    ) -> MemoryView | None:
        """The view at the moment when the stream has passed `before_ns`, so that live and offline see the same.

        Without an end, or with one that lies behind, it is the view of all that has come so far. What is stamped later
        than the end waits until the view has been made, in whatever order the sources' messages arrive. A source that
        lags more than QUIET_SOURCE_S behind the newest and is not heard of any more is not waited for, nor any when
        nothing has arrived for QUIET_STREAM_S and the newest is past the end. What comes later all the same is counted
        as late.

        Returns:
            The view, or None at `deadline` (time.monotonic) or when cancelled.

        Raises:
            RuntimeError: the view could not be made; says why.
        """
        if self._inline:
            # Nothing can arrive while the caller waits.
            return self.view(after_ns, before_ns, sources)
        look = self.begin_look(after_ns, before_ns, sources)
        received = -1
        while not look.done.wait(max(0.0, min(LOOK_AGAIN_S, deadline - time.monotonic()))):
            with self._entry:
                if self._stopping or time.monotonic() >= deadline or (cancel is not None and cancel.is_set()):
                    if look in self._looks:
                        self._looks.remove(look)
                        self._entry.notify_all()
                    break
                # Twice the same: whoever has just been held up does not take that for silence.
                if received == self._received and time.monotonic() - self._last_submit_s > QUIET_STREAM_S:
                    self._release_looks(lambda stamp_ns: self._newest_heard() >= stamp_ns)
                    self._entry.notify_all()
                received = self._received
        return self.end_look(look)

    def begin_look(self, after_ns: int = 0, before_ns: int = 0, sources: Sequence[str] = ()) -> Look:
        """Ask for a view without waiting; `end_look` gives it once its `made` is True."""
        with self._entry:
            ahead = before_ns >= self.clock.newest_ns if before_ns else False
            look = Look(after_ns, before_ns, tuple(sources), before_ns if ahead else 0)
            if ahead:
                self._looks.append(look)
            else:
                self._enqueue(look)
            self._entry.notify_all()
        return look

    @staticmethod
    def end_look(look: Look) -> MemoryView | None:
        """The view of a look, None when it has not been made; raises RuntimeError when it could not be made."""
        if look.failure:
            raise RuntimeError(look.failure)
        return look.view

    def passed(self, stamp_ns: int) -> bool:
        """Whether each source that is still heard of has shown a stamp at or after `stamp_ns`.

        The end of a piece of sound shows nothing: the next one may bear the same stamp, or by jitter an earlier one.
        Sources may lag for two reasons: one has fallen silent, or its messages wait in the middleware behind others,
        as they do when a bag is played fast. Inline there is no middleware.
        """
        newest = self._newest_heard()
        late = newest - round(QUIET_SOURCE_S * SECOND_NS)
        silent = self._heard_s if self._inline else self._heard_s - QUIET_STREAM_S
        return newest >= stamp_ns and all(
            s.newest_ns >= stamp_ns or (s.last_ns < late and s.heard_s <= silent) for s in self._sources.values()
        )

    @property
    def complete_ns(self) -> int:
        """Stamp up to which each camera and microphone that is still heard of has been observed; 0 before the first."""
        newest = self.clock.newest_ns
        late = newest - round(QUIET_SOURCE_S * SECOND_NS)
        heard = [s.last_ns for name, s in list(self._sources.items()) if name != POSE_SOURCE and s.last_ns >= late]
        return min((*heard, newest)) if heard else 0

    def _newest_heard(self) -> int:
        return max((s.last_ns for s in self._sources.values()), default=0)

    def _wait(self, condition: Callable[[], bool], deadline: float | None) -> bool:
        while not condition():
            left = None if deadline is None else deadline - time.monotonic()
            if self._stopping or (left is not None and left <= 0):
                return False
            self._entry.wait(left)  # finished work notifies
        return True

    # -- out ------------------------------------------------------------------------------------------------------

    @property
    def memory(self) -> StreamMemory:
        """The running session's memory."""
        return self.intake.memory

    @property
    def memory_id(self) -> str:
        """Name of the running session's memory."""
        return f"{self.memory_name}-{self._session}"

    @property
    def source_names(self) -> tuple[str, ...]:
        """Cameras and microphones heard of so far."""
        return tuple(name for name in list(self._sources) if name != POSE_SOURCE)

    @property
    def newest_ns(self) -> int:
        """Newest stamp over all sources, 0 before the first."""
        return self.clock.newest_ns

    def view(self, after_ns: int = 0, before_ns: int = 0, sources: Sequence[str] = ()) -> MemoryView:
        """What a question over this window sees, with the provisional tail; later observations do not change it."""
        with self._memory:
            view = self.model.view(self.intake.memory, after_ns, before_ns, sources)
            return replace(view, unindexed=self.intake.unindexed(view))

    def picture_size(self, source: str) -> tuple[int, int] | None:
        """(width, height) of the pictures that a camera sends, None before the first of this process."""
        return self.intake.picture_sizes.get(source)

    def status(self) -> ObserverStatus:
        """Counters of this instant."""
        intake = self.intake
        with self._entry:
            sources = {
                name: SourceStatus(
                    s.received, s.queued, s.newest_ns, s.last_ns, s.longest_gap_s, Counter(s.drops), s.late
                )
                for name, s in self._sources.items()
            }
            queue = {kind: self._waiting[kind] for kind in CAPACITY}
            start_ns, newest_ns = self.clock.start_ns, self.clock.newest_ns
            waiting_looks = len(self._looks)
        drops = Counter(intake.drops)
        for source in sources.values():
            drops.update(source.drops)
        encode = sorted(intake.encode_s) or [0.0]
        visual, audio = intake.memory.configs
        tokens = (len(intake.memory.kept("visual")[0]), len(intake.memory.kept("audio")[0]))
        return ObserverStatus(
            self.memory_id,
            self._session,
            start_ns,
            newest_ns,
            intake.frames,
            intake.audio_s,
            intake.poses,
            dict(drops),
            sources,
            queue,
            (1e3 * encode[len(encode) // 2], 1e3 * encode[-1]),
            tokens,
            (visual.budget, audio.budget),
            waiting_looks,
        )

    def finish(self) -> None:
        """Take in what waits in the queue and in the audio timelines: the end of a bag."""
        with self._entry:
            self._release_looks(lambda _: True)
            self._entry.notify_all()
        if self._inline:
            self._take_all()
        self.drain()
        with self._memory:
            self.intake.finish_sound()

    def close(self) -> None:
        """Stop the worker; what is still queued is not taken in."""
        with self._entry:
            self._stopping = True
            self._entry.notify_all()
        if self._worker is not None:
            self._worker.join()


def _be_patient() -> None:
    """Let this thread, when it is woken, not take the core of whoever woke it: a callback that is nearly done.

    Only Linux knows this, and a process that was given another policy keeps it. Threads that this one starts, as
    OpenMP's, inherit it. Its share of the core stays the same, so nobody waits longer for a lock that it holds.
    """
    if hasattr(os, "SCHED_BATCH") and os.sched_getscheduler(0) == os.SCHED_OTHER:
        with contextlib.suppress(OSError):  # a container may forbid it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
