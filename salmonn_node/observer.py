"""The way in: observations are put in a session, sampled, queued and taken in by one worker; drops are counted."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from salmonn_node.engines.reasons import is_device_error
from salmonn_node.intake import TAKEN, Intake, Recorder
from salmonn_node.memory.evidence import EvidenceIndex, Moment
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

log = logging.getLogger(__name__)


@dataclass
class SourceStatus:
    """What came from one camera, microphone or pose topic.

    Attributes:
        received: messages offered, good or not.
        queued: messages that were neither sampled out nor refused.
        last_ns: newest stamp accepted by the session clock; for sound the stamp after its last sample.
        longest_gap_s: longest step between two accepted stamps of this session.
        drops: refusals by reason.
    """

    received: int = 0
    queued: int = 0
    last_ns: int = 0
    longest_gap_s: float = 0.0
    drops: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class ObserverStatus:
    """A snapshot of counters; see Intake and SourceStatus for their meaning.

    Attributes:
        queue: waiting observations by kind (frame, sound, pose).
        encode_ms: median and worst of the last encodings, milliseconds; zeros before the first.
        drops: refusals by reason, over all sources.
        tokens: kept tokens of both modalities, (visual, audio).
        budgets: at most so many.
    """

    memory_id: str
    session: int
    start_ns: int
    newest_ns: int
    frames: int
    audio_s: float
    poses: int
    drops: dict[str, int]
    sources: dict[str, SourceStatus]
    queue: dict[str, int]
    encode_ms: tuple[float, float]
    tokens: tuple[int, int]
    budgets: tuple[int, int]


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
        self._queue: deque[Observation | int] = deque()  # an int is the number of the session that begins there
        self._waiting: Counter[str] = Counter()
        self._submitted = self._done = 0
        self._last_submit_s = time.monotonic()
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
            self._last_submit_s = time.monotonic()
            status = self._sources.setdefault(source, SourceStatus())
            status.received += 1
            fate = self._admit(observation, source, status)
            if fate != "queued":
                status.drops[fate] += 1
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
        self._enqueue(observation)
        return "queued"

    def _begin_session(self) -> None:
        self.sampler.reset()
        for status in self._sources.values():
            status.last_ns, status.longest_gap_s = 0, 0.0
        self._enqueue(self.clock.number)

    def _enqueue(self, item: Observation | int) -> None:
        self._queue.append(item)
        self._submitted += 1

    # -- the worker -----------------------------------------------------------------------------------------------

    _last_fate = TAKEN

    def _work(self) -> None:
        while True:
            with self._entry:
                while not self._queue and not self._stopping:
                    self._entry.wait()
                if self._stopping:
                    return
            self._take_next()

    def _take_all(self) -> None:
        while self._queue:
            self._take_next()

    def _take_next(self) -> None:
        with self._entry:
            item = self._queue.popleft()
            if not isinstance(item, int):
                kind = "pose" if isinstance(item, Pose) else "sound" if isinstance(item, AudioChunk) else "frame"
                self._waiting[kind] -= 1
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

    def wait_until(self, stamp_ns: int, deadline: float, cancel: threading.Event | None = None) -> bool:
        """Wait until everything stamped up to `stamp_ns` has been taken in; False at `deadline` or when cancelled.

        That is so when each source has shown a stamp at or after it. Sources that lag more than QUIET_SOURCE_S behind
        the newest are not waited for, nor any when nothing has arrived for QUIET_STREAM_S and the newest is past it.
        Inline nothing can arrive while the caller waits: what there is has been taken in.
        """
        if self._inline:
            return True
        with self._entry:
            reached = self._wait(lambda: self._reached(stamp_ns), deadline, cancel)
            if not reached:
                return False
            target = self._submitted
            return self._wait(lambda: self._done >= target, deadline, cancel)

    def _reached(self, stamp_ns: int) -> bool:
        newest = max((s.last_ns for s in self._sources.values()), default=0)
        if newest < stamp_ns:
            return False
        late = newest - round(QUIET_SOURCE_S * SECOND_NS)
        if all(s.last_ns >= stamp_ns or s.last_ns < late for s in self._sources.values()):
            return True
        return time.monotonic() - self._last_submit_s > QUIET_STREAM_S

    def _wait(
        self, condition: Callable[[], bool], deadline: float | None, cancel: threading.Event | None = None
    ) -> bool:
        while not condition():
            if self._stopping or (cancel is not None and cancel.is_set()):
                return False
            left = 0.2 if deadline is None else min(0.2, deadline - time.monotonic())
            if left <= 0:
                return False
            # New work and finished work both notify; the bound serves `cancel` and the quiet stream.
            self._entry.wait(left)
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
            return self.model.view(self.intake.memory, after_ns, before_ns, sources)

    def newest_moment(self, source: str, stamp_ns: int) -> Moment | None:
        """What is known of an observation of `source` whose patch or window is not full yet; see Intake.newest."""
        with self._memory:
            return self.intake.newest(source, stamp_ns)

    def status(self) -> ObserverStatus:
        """Counters of this instant."""
        intake = self.intake
        with self._entry:
            sources = {
                name: SourceStatus(s.received, s.queued, s.last_ns, s.longest_gap_s, Counter(s.drops))
                for name, s in self._sources.items()
            }
            queue = {kind: self._waiting[kind] for kind in CAPACITY}
            start_ns, newest_ns = self.clock.start_ns, self.clock.newest_ns
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
        )

    def finish(self) -> None:
        """Take in what waits in the queue and in the audio timelines: the end of a bag."""
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
