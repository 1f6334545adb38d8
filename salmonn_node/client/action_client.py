"""An action client that may be used from another thread than the executor's."""

from __future__ import annotations

import threading
from typing import Any

from rclpy.action import ActionClient
from rclpy.task import Future


class ThreadedActionClient(ActionClient):
    """rclpy's client, whose responses wait until it is known whose they are.

    rclpy sends a request first and notes its number and future afterwards. A response that an executor in another
    thread takes in between is "unexpected" and lost, or ends the sender with a ValueError: seen when a goal was
    answered within a millisecond.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._sending = threading.RLock()
        super().__init__(*args, **kwargs)

    def send_goal_async(self, *args: Any, **kwargs: Any) -> Future:
        """As in rclpy."""
        with self._sending:
            return super().send_goal_async(*args, **kwargs)

    def _cancel_goal_async(self, goal_handle: Any) -> Future:
        with self._sending:
            return super()._cancel_goal_async(goal_handle)

    def _get_result_async(self, goal_handle: Any) -> Future:
        with self._sending:
            return super()._get_result_async(goal_handle)

    async def execute(self, taken_data: Any) -> None:
        """As in rclpy."""
        with self._sending:
            pass  # what was taken belongs to a request that has been sent, and now also noted
        await super().execute(taken_data)
