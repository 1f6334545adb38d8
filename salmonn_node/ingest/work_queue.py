"""The observer's work queue: one thread processes observations, session starts and view requests in order."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from salmonn_node.ingest.admission import Observation, kind_of
from salmonn_node.ingest.view_requests import ViewRequest
from salmonn_node.stream.observations import Pose


@dataclass(frozen=True)
class SessionStart:
    """Marks that the observations after it belong to session `number`."""

    number: int


WorkItem = Observation | SessionStart | ViewRequest


class WorkQueue:
    """A bounded queue and the thread that empties it. Without the thread, call `run_all` to empty it.

    Args:
        run: processes one item; it must not raise.
        held_ns: returns a stamp. Observations stamped later wait; with 0, none wait.
        capacity: bounds by kind of observation.
        threaded: whether to start the thread.

    Attributes:
        change: guards the queue. Hold it for every method except `run_all` and `close`.
        stopping: whether the queue has stopped; it then processes no more items.
        submitted: number of items put so far.
    """

    def __init__(
        self,
        run: Callable[[WorkItem], None],
        held_ns: Callable[[], int],
        capacity: Mapping[str, int],
        *,
        threaded: bool,
    ) -> None:
        self.change = threading.Condition()
        self.stopping = False
        self.submitted = 0
        self._run, self._held_ns, self._capacity = run, held_ns, capacity
        self._items: deque[WorkItem] = deque()
        self._waiting: Counter[str] = Counter()
        self._done = 0
        self._thread: threading.Thread | None = None
        if threaded:
            self._thread = threading.Thread(target=self._work, name="observer", daemon=True)
            self._thread.start()

    def put(self, item: WorkItem) -> None:
        """Append an item. The caller must notify `change`."""
        self._items.append(item)
        self.submitted += 1
        if not isinstance(item, SessionStart | ViewRequest):
            self._waiting[kind_of(item)] += 1

    def is_full(self, kind: str) -> bool:
        """Whether the queue has no room for another observation of this kind."""
        return self._waiting[kind] >= self._capacity[kind]

    def waiting(self) -> dict[str, int]:
        """Number of waiting observations by kind."""
        return {kind: self._waiting[kind] for kind in self._capacity}

    def pop(self, wanted: Callable[[WorkItem], bool] = lambda item: True) -> WorkItem | None:
        """Remove and return the next item; None when there is none or `wanted` refuses it.

        Observations stamped later than `held_ns` are skipped, except poses. A pose changes no token, and it improves
        the poses of earlier observations.
        """
        position = self._next()
        if position is None or not wanted(self._items[position]):
            return None
        item = self._items[position]
        del self._items[position]
        if not isinstance(item, SessionStart | ViewRequest):
            self._waiting[kind_of(item)] -= 1
        return item

    def count_done(self) -> None:
        """Count an item as done and wake waiting threads. Call it for items from `pop`; `run_all` counts its own."""
        self._done += 1
        self.change.notify_all()

    def run_all(self) -> None:
        """Process all items that are not held back, in the caller's thread."""
        while self._take_next():
            pass

    def wait_until_done(self, deadline: float | None = None) -> bool:
        """Wait until all items put so far are done; False at `deadline` (time.monotonic) or when the queue stops."""
        target = self.submitted
        while self._done < target:
            left = None if deadline is None else deadline - time.monotonic()
            if self.stopping or (left is not None and left <= 0):
                return False
            self.change.wait(left)
        return True

    def stop(self) -> None:
        """Stop processing items. Waiting threads stop waiting."""
        self.stopping = True
        self.change.notify_all()

    def close(self) -> None:
        """Stop, and wait until the thread has finished its current item."""
        with self.change:
            self.stop()
        if self._thread is not None:
            self._thread.join()

    def _next(self) -> int | None:
        held_ns = self._held_ns()
        for position, item in enumerate(self._items):
            if not held_ns or isinstance(item, SessionStart | ViewRequest | Pose) or item.stamp_ns <= held_ns:
                return position
        return None

    def _take_next(self) -> bool:
        with self.change:
            item = self.pop()
        if item is None:
            return False
        self._run(item)
        with self.change:
            self.count_done()
        return True

    def _work(self) -> None:
        _let_waker_finish()
        while True:
            with self.change:
                while self._next() is None and not self.stopping:
                    self.change.wait()
                if self.stopping:
                    return
            self._take_next()


def _let_waker_finish() -> None:
    """Let the thread that wakes this one keep its core. It is usually a callback that is about to return.

    Linux has a scheduling policy for this (SCHED_BATCH). A process that already has another policy keeps it. Threads
    that this thread starts, such as OpenMP's, inherit the policy. This thread's share of the core stays the same, so
    no other thread waits longer for a lock that it holds.
    """
    if hasattr(os, "SCHED_BATCH") and os.sched_getscheduler(0) == os.SCHED_OTHER:
        with contextlib.suppress(OSError):  # a container may forbid it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
