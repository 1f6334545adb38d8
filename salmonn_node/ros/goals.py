"""Open action goals: a cancel finds the work for its goal at any time, and each goal ends exactly once."""

from __future__ import annotations

import threading
import time
from typing import Any, Generic, TypeVar

from action_msgs.msg import GoalStatus
from rclpy.impl.implementation_singleton import rclpy_implementation

Work = TypeVar("Work")
CANCELING_S = 1.0  # a goal becomes CANCELING within this time of the cancel callback's return


class OpenGoals(Generic[Work]):
    """The work for each goal that has not ended. Any thread may call the methods.

    rclpy tells the caller that a goal is accepted before it calls the node's handler. So a cancel may come before there
    is any work to cancel. It is remembered until `add`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._work: dict[bytes, Work] = {}
        self._canceled: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._work)

    def all(self) -> dict[bytes, Work]:
        """The work of all goals, by goal id."""
        with self._lock:
            return dict(self._work)

    def add(self, goal: Any, work: Work, limit: int | None = None) -> bool:
        """Register the work for a goal. Returns False if there are already `limit` goals."""
        with self._lock:
            if limit is not None and len(self._work) >= limit:
                return False
            self._work[_key(goal)] = work
            return True

    def canceled(self, goal: Any) -> bool:
        """Whether the caller has canceled the goal."""
        with self._lock:
            return _key(goal) in self._canceled

    def cancel(self, goal: Any) -> Work | None:
        """Remember a cancel; returns the goal's work, None when there is none yet."""
        with self._lock:
            self._canceled.add(_key(goal))
            return self._work.get(_key(goal))

    def end(self, goal: Any, succeeded: bool, result: Any) -> None:
        """End a goal as canceled if the caller canceled it, otherwise as succeeded or aborted."""

        def finish(handle: Any) -> Any:
            if handle.status == GoalStatus.STATUS_CANCELING:
                handle.canceled()
            elif succeeded:
                handle.succeed()
            else:
                handle.abort()
            with self._lock:
                self._work.pop(_key(goal), None)
                self._canceled.discard(_key(goal))
            return result

        try:
            goal.execute(finish)
        except rclpy_implementation.RCLError:
            # A cancel came between execute's check of the state and its change. The second try sees the new state.
            goal.execute(finish)


def wait_until_canceling(goal: Any) -> None:
    """Wait until a goal is CANCELING, which happens only after the cancel callback has returned.

    If the result were set earlier, the goal would end as aborted.
    """
    give_up = time.monotonic() + CANCELING_S
    while not goal.is_cancel_requested and goal.is_active and time.monotonic() < give_up:
        time.sleep(0.002)


def never_executed(goal: Any) -> Any:
    """Execute callback for servers that end each goal with `OpenGoals.end`. It must never run."""
    raise AssertionError("a goal was executed without its result")


def _key(goal: Any) -> bytes:
    return bytes(goal.goal_id.uuid)
