"""Spins an executor although entities of its nodes are destroyed meanwhile, and one that takes messages in itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.executors import (
    ConditionReachedException,
    Executor,
    ExternalShutdownException,
    ShutdownException,
    TimeoutException,
)
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.logging import get_logger
from rclpy.subscription import Subscription
from rclpy.task import Future


class MessagesFirstExecutor(Executor):
    """Runs the callbacks of subscriptions in the spinning thread, all others in a pool.

    rclpy's MultiThreadedExecutor hands each message to its pool and goes on building its wait set at the same time, so
    that every short callback contends with it for the interpreter's lock, and what no thread of the pool has taken yet
    is handed over again (rclpy issue 1452). A callback that only checks and hands over is done sooner where the message
    was noticed. What may last, services, actions and timers, does not hold the messages up.

    Args:
        threads: size of the pool.
        context: rclpy's context, None for the default one.
    """

    def __init__(self, threads: int, *, context: Context | None = None) -> None:
        super().__init__(context=context)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="executor")
        self._handed_over: list[Any] = []

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait for a callback, at most `timeout_sec`, and run it or hand it over; raises what callbacks raised."""
        self._spin_once(timeout_sec, lambda: False)

    def spin_once_until_future_complete(self, future: Future, timeout_sec: Any = None) -> None:
        """The same, but do not wait once `future` is done."""
        future.add_done_callback(lambda _: self.wake())
        self._spin_once(timeout_sec, future.done)

    def _spin_once(self, timeout_sec: Any, condition: Any) -> None:
        try:
            task, entity, _ = self.wait_for_ready_callbacks(timeout_sec, None, condition)
        except (ConditionReachedException, ExternalShutdownException, ShutdownException, TimeoutException):
            return
        if isinstance(entity, Subscription):
            task()
            task.result()
            return
        self._pool.submit(task)
        self._handed_over.append(task)
        for done in [one for one in self._handed_over if one.done() or one.cancelled()]:
            self._handed_over.remove(done)
            done.result()


def spin(executor: Executor) -> None:
    """Spin until the executor or its context is shut down.

    rclpy's executor lists the subscriptions, then waits for them; one that is destroyed in between, as a deactivated
    node destroys its inputs, ends the spinning with InvalidHandle (rclpy issue 1284). Nothing has been taken from the
    others by then, so that spinning again serves them.
    """
    # There is no public way to ask an executor whether it has been shut down.
    while executor.context.ok() and not executor._is_shutdown:
        try:
            executor.spin()
        except InvalidHandle as error:
            get_logger("salmonn_executor").debug(f"an entity was destroyed while it was waited for: {error}")
        except ExternalShutdownException:
            return
        except rclpy_implementation.RCLError:
            # A context that is shut down while its entities are listed cannot be waited for.
            if executor.context.ok():
                raise
