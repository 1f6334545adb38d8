"""Makes each requested view when the stream has passed its moment, so that live and offline views are the same."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from salmonn_node.ingest.admission import QUIET_STREAM_S, AdmissionControl
from salmonn_node.ingest.view_requests import ViewRequest, WaitingViews
from salmonn_node.ingest.work_queue import WorkItem, WorkQueue

if TYPE_CHECKING:
    from salmonn_node.model.scene_view import SceneView

CHECK_PERIOD_S = 0.2  # how often a waiting thread checks for a cancel and for a quiet stream

log = logging.getLogger(__name__)


class ViewMaker:
    """Holds each request until its moment, then puts it in the observer's queue and makes the view.

    Args:
        waiting: the waiting requests; the queue holds back later observations for them.
        queue: the observer's queue; its lock guards everything here.
        admission: says how far each source has come.
        make_view: returns the view of a window (after_ns, before_ns, sources) of the current memory.
        inline: whether the caller's thread does all the work, so that no message waits in a middleware.
    """

    def __init__(
        self,
        waiting: WaitingViews,
        queue: WorkQueue,
        admission: AdmissionControl,
        make_view: Callable[[int, int, Sequence[str]], SceneView],
        *,
        inline: bool,
    ) -> None:
        self._waiting, self._queue, self._admission = waiting, queue, admission
        self._make_view = make_view
        self._lag_s = 0.0 if inline else QUIET_STREAM_S

    def request(self, after_ns: int, before_ns: int, sources: Sequence[str]) -> ViewRequest:
        """Request a view without waiting. The request has the view once `made` is True."""
        with self._queue.change:
            ahead = before_ns >= self._admission.clock.newest_ns if before_ns else False
            request = ViewRequest(after_ns, before_ns, tuple(sources), before_ns if ahead else 0)
            if ahead:
                self._waiting.add(request)
            else:
                self._queue.put(request)
            self._queue.change.notify_all()
        return request

    def wait(self, request: ViewRequest, deadline: float, cancel: threading.Event | None) -> SceneView | None:
        """Wait for the view of a request; None at `deadline` (time.monotonic), when cancelled, or when the queue stops.

        Raises:
            RuntimeError: the view could not be made; the message says why.
        """
        received = -1
        while not request.done.wait(max(0.0, min(CHECK_PERIOD_S, deadline - time.monotonic()))):
            with self._queue.change:
                if self._queue.stopping or time.monotonic() >= deadline or (cancel is not None and cancel.is_set()):
                    if self._waiting.remove(request):
                        self._queue.change.notify_all()
                    break
                # The count must be the same twice: if only this thread was held up, the stream was not silent.
                quiet = time.monotonic() - self._admission.last_arrival_s > QUIET_STREAM_S
                if quiet and received == self._admission.received:
                    self._release(lambda stamp_ns: self._admission.newest_heard_ns >= stamp_ns)
                    self._queue.change.notify_all()
                received = self._admission.received
        return request.result()

    def release_passed(self) -> None:
        """Queue the requests whose moment the stream has passed, at this place in the order of observations."""
        self._release(lambda stamp_ns: self._admission.passed(stamp_ns, lag_s=self._lag_s))

    def release_all(self) -> None:
        """Queue all waiting requests, because the observations they wait for will never come."""
        self._release(lambda _: True)

    def _release(self, reached: Callable[[int], bool]) -> None:
        for request in self._waiting.release(reached):
            self._queue.put(request)

    def make(self, request: ViewRequest) -> None:
        """Make a view, on the worker. Requests for the same window that follow directly share the view."""
        view, failure = None, ""
        try:
            view = self._make_view(request.after_ns, request.before_ns, request.sources)
        except Exception as error:
            # The stream goes on. The waiting caller gets the error.
            log.exception("a view could not be made")
            failure = f"{type(error).__name__}: {error}"
        same: WorkItem | None = request
        with self._queue.change:
            while isinstance(same, ViewRequest):
                same.view, same.failure = view, failure
                same.done.set()
                self._waiting.remove(same)
                same = self._queue.pop(lambda item: isinstance(item, ViewRequest) and item.window == request.window)
                if same is not None:
                    self._queue.count_done()
