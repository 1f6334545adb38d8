"""The observer: adds observations to the memory one by one, and makes views of the memory between two of them."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from salmonn_node.engines.reasons import is_device_error
from salmonn_node.ingest.admission import (
    DEVICE_FAILED,
    POSE_SOURCE,
    QUEUED,
    TAKEN,
    Admission,
    AdmissionControl,
    Observation,
    source_of,
)
from salmonn_node.ingest.intake import Intake, Recorder
from salmonn_node.ingest.status import ObserverStatus, observer_status
from salmonn_node.ingest.view_requests import ViewRequest, WaitingViews
from salmonn_node.ingest.views import ViewMaker
from salmonn_node.ingest.work_queue import SessionStart, WorkItem, WorkQueue
from salmonn_node.memory.evidence_index import EvidenceIndex
from salmonn_node.stream.observations import AudioSpan, Frame, Pose

if TYPE_CHECKING:
    from salmonn_node.memory.stream_memory import StreamMemory
    from salmonn_node.model.scene_view import SceneView
    from salmonn_node.model.video_salmonn_s import VideoSalmonnS

# Room for one minute: sampled frames of four cameras, sound in 20 ms chunks, poses at 50 Hz.
CAPACITY = {"frame": 240, "sound": 3_000, "pose": 3_000}

log = logging.getLogger(__name__)


class Observer:
    """Adds observations to a memory in its own thread or, with `inline=True`, in the caller's thread.

    You may call `submit` from any thread; it returns at once. Observations are processed in the order of the calls. A
    view is always consistent: it shows the memory between two observations.

    Args:
        model: the network.
        memory: the memory to continue; None makes a new one.
        evidence: the index to write to; None makes one in RAM.
        frame_rate_hz: frames taken per second and camera.
        record: called with each observation just before the memory gets it (for the journal).
        on_session: called on the worker when a new session begins, with its number and the old memory.
        memory_name: first part of `memory_id`.
        inline: use no thread; `submit` returns when the observation has been processed.
        capacity: bounds of the queue by kind of observation.

    Attributes:
        on_caption: called with the key and the words of an entry of the log as it gets them (for the journal).
        failure: the device error that stopped the observer; None while it runs.
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
        capacity: Mapping[str, int] | None = None,
    ) -> None:
        self.model = model
        self.evidence = evidence or EvidenceIndex(":memory:")
        self.memory_name = memory_name
        self.intake = Intake(model, memory or model.new_memory(), self.evidence, record)
        self.on_session = on_session
        self.on_caption: Callable[[str, str], None] | None = None
        self.failure: Exception | None = None
        self._inline = inline
        self._session = 0
        self._last_admission: Admission = TAKEN
        self._memory = threading.Lock()  # held while one observation is processed, and while a view is made
        self._waiting = WaitingViews()
        bounds = {**CAPACITY, **(capacity or {})}
        self._queue = WorkQueue(self._run, lambda: self._waiting.held_ns, bounds, threaded=not inline)
        self._change = self._queue.change  # guards queue, admission and waiting views
        self._admission = AdmissionControl(
            frame_rate_hz, self._queue.is_full, self._queue_session, now_s=time.monotonic()
        )
        self._views = ViewMaker(self._waiting, self._queue, self._admission, self.view, inline=inline)

    # -- in -------------------------------------------------------------------------------------------------------

    def submit(self, observation: Observation) -> Admission:
        """Accept or refuse an observation.

        Returns:
            "queued" ("taken" when inline), or the reason of the refusal, which is counted.
        """
        with self._change:
            before = self._queue.submitted
            admission = self._admission.admit(observation, time.monotonic())
            if admission == QUEUED:
                self._admission.sources[source_of(observation)].late += observation.stamp_ns <= self._waiting.passed_ns
                self._queue.put(observation)
            self._views.release_passed()
            if self._queue.submitted != before:  # a frame that is not sampled wakes no thread
                self._change.notify_all()
        if self._inline and admission == QUEUED:
            self._queue.run_all()
            return self._last_admission
        return admission

    def refuse(self, source: str, reason: str) -> None:
        """Count a message that could not be converted to an observation."""
        with self._change:
            self._admission.refuse(source, reason)

    def count_clock_step(self) -> None:
        """Count a backward step of the clock that is too small for a new session."""
        with self._change:
            self._admission.clock_steps += 1

    def restart(self) -> None:
        """Begin a new session with an empty memory, for example after the ROS clock jumped back."""
        with self._change:
            self._admission.restart()
            self._change.notify_all()
        if self._inline:
            self._queue.run_all()

    def drain(self, deadline: float | None = None) -> bool:
        """Wait until everything submitted so far is processed; False when `deadline` (time.monotonic) came first."""
        with self._change:
            return self._queue.wait_until_done(deadline)

    def finish(self) -> None:
        """Process everything that waits in the queue and in the audio timelines. For the end of a bag."""
        with self._change:
            self._views.release_all()
            self._change.notify_all()
        if self._inline:
            self._queue.run_all()
        self.drain()
        with self._memory:
            self.intake.finish_sound()

    def close(self) -> None:
        """Stop the worker. Observations that are still queued are dropped."""
        self._queue.close()

    def caption(self, key: str, text: str) -> bool:
        """Give an entry of the memory's log its words; returns False when there is no such entry any more."""
        with self._memory:
            log = self.intake.memory.log
            if log is None or not log.set_caption(key, text):
                return False
            if self.on_caption is not None:
                self.on_caption(key, text)
            return True

    # -- the worker -----------------------------------------------------------------------------------------------

    def _run(self, item: WorkItem) -> None:
        if isinstance(item, ViewRequest):
            self._views.make(item)
            return
        try:
            with self._memory:
                if isinstance(item, SessionStart):
                    self._start_session(item.number)
                else:
                    self._last_admission = self.intake.take(item)
        except Exception as error:
            if is_device_error(error):
                # Stop here. Continuing on another device would change the arithmetic in mid-stream.
                self._fail(error)
                if self._inline:
                    raise
            else:
                # One bad observation must not end the stream; it is counted as encode_failed.
                self._last_admission = "encode_failed"
                log.exception("an observation could not be added to the memory")

    def _fail(self, error: Exception) -> None:
        """Stop observing and set `failure`. Waiting threads stop waiting."""
        self._last_admission = DEVICE_FAILED
        log.critical("the device failed, no more observations are processed: %s", error)
        with self._change:
            self.failure = error
            self._admission.closed = DEVICE_FAILED
            self._queue.stop()

    def _queue_session(self, number: int) -> None:
        self._views.release_all()
        self._waiting.passed_ns = 0
        self._queue.put(SessionStart(number))

    def _start_session(self, number: int) -> None:
        if self.on_session is not None:
            self.on_session(number, self.intake.memory)
        self.intake.start_session(self.model.new_memory())
        self._session = number

    # -- views ----------------------------------------------------------------------------------------------------

    def view(self, after_ns: int = 0, before_ns: int = 0, sources: Sequence[str] = ()) -> SceneView:
        """The view that a question over this window reads now, including the provisional tail.

        Later observations do not change the view. Arguments are those of `wait_for_view`.
        """
        with self._memory:
            view = self.model.view(self.intake.memory, after_ns, before_ns, sources)
            return replace(view, unindexed=self.intake.moments.unindexed(view))

    def wait_for_view(
        self,
        after_ns: int = 0,
        before_ns: int = 0,
        sources: Sequence[str] = (),
        *,
        deadline: float,
        cancel: threading.Event | None = None,
    ) -> SceneView | None:
        """Wait until the stream has passed `before_ns`, and return the view of that moment.

        The view is the same live and offline: observations stamped later than `before_ns` wait until the view is made,
        in whatever order the messages arrive. If `before_ns` is 0 or in the past, the view shows everything so far.

        The request does not wait for a source that is silent and lags more than QUIET_SOURCE_S behind the newest stamp.
        It waits for no source when nothing has arrived for QUIET_STREAM_S and the newest stamp is past the end.
        Observations that come after the view should have shown them are counted as late.

        Args:
            after_ns: start of the window, 0 for the start of the memory.
            before_ns: end of the window, 0 for now.
            sources: names of cameras and microphones; empty means all.
            deadline: time.monotonic() at which to give up.
            cancel: set it to stop the wait.

        Returns:
            The view, or None at the deadline or when cancelled.

        Raises:
            RuntimeError: the view could not be made; the message says why.
        """
        if self._inline:
            # The caller's thread does all the work, so nothing can arrive while it waits.
            return self.view(after_ns, before_ns, sources)
        return self._views.wait(self.request_view(after_ns, before_ns, sources), deadline, cancel)

    def request_view(self, after_ns: int = 0, before_ns: int = 0, sources: Sequence[str] = ()) -> ViewRequest:
        """Request the view of `wait_for_view` without waiting. The request has the view once `made` is True."""
        return self._views.request(after_ns, before_ns, sources)

    # -- status ---------------------------------------------------------------------------------------------------

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
        """Names of all cameras and microphones: those in the memory, also from an earlier process, and new ones."""
        names = dict.fromkeys((*self.intake.memory.sources, *list(self._admission.sources)))
        return tuple(name for name in names if name != POSE_SOURCE)

    @property
    def start_ns(self) -> int:
        """First stamp of the session, 0 before the first observation."""
        return self._admission.clock.start_ns

    @property
    def newest_ns(self) -> int:
        """Newest stamp of the session over all sources, 0 before the first observation."""
        return self._admission.clock.newest_ns

    @property
    def complete_ns(self) -> int:
        """Stamp up to which every active camera and microphone has been observed; 0 before the first observation."""
        return self._admission.complete_ns

    def picture_size(self, source: str) -> tuple[int, int] | None:
        """(width, height) of the pictures that a camera sends; None until this process has received one."""
        return self.intake.picture_sizes.get(source)

    def status(self) -> ObserverStatus:
        """The current counters."""
        with self._change:
            sources = {name: status.copy() for name, status in self._admission.sources.items()}
            queue, waiting_views = self._queue.waiting(), len(self._waiting)
            span_ns, clock_steps = (self.start_ns, self.newest_ns), self._admission.clock_steps
        status = observer_status(self.memory_id, self._session, span_ns, sources, queue, waiting_views, self.intake)
        return replace(status, clock_steps=clock_steps)

    # -- state that outlives the process ------------------------------------------------------------------------------

    def record_to(self, record: Recorder | None) -> None:
        """Set the function that is called with each observation just before the memory gets it; None for none."""
        self.intake.record = record

    @contextlib.contextmanager
    def still(self) -> Iterator[None]:
        """Pause observing between two observations (context manager). Wrap `to_state` in it, except on the worker."""
        with self._memory:
            yield

    def to_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """State for `restore`, bit for bit: copies of all tensors, and JSON values. Call it within `still`."""
        tensors, values = self.intake.to_state()
        return tensors, {**values, **self._admission.to_state(), "session": self._session}

    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Restore the state from `to_state`. Call it before the first observation.

        Raises:
            ValueError, KeyError, TypeError: the state does not fit the model, or a value is missing.
        """
        self.intake.restore(tensors, values)
        self._session = int(values["session"])
        self._admission.restore(values, self._session)

    def retake(self, observation: Frame | AudioSpan | Pose) -> None:
        """Add an observation that `record` was called with in an earlier process. Keep the order of those calls."""
        if not isinstance(observation, Pose):
            self._admission.retake(observation)
        self.intake.take(observation)
        if isinstance(observation, Frame):
            # Recorded pictures have the network's resolution, not the camera's.
            self.intake.picture_sizes.pop(observation.source, None)

    def retake_session(self, number: int) -> None:
        """Begin a session for which `on_session` was called in an earlier process."""
        self._session = number
        self._admission.enter_session(number)
        self.intake.start_session(self.model.new_memory())
