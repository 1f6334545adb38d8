"""The node's executor: runs subscription callbacks in the spinning thread and survives exceptions in callbacks."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections import Counter
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

YIELD_S = 0.0002
WAIT_FAILURES = 10  # after this many errors of waiting in a row, without a callback between them, spinning ends

log = get_logger("salmonn_executor")


class MessagesFirstExecutor(Executor):
    """Runs subscription callbacks in the spinning thread and all others in a pool. No callback can end the spinning.

    rclpy's MultiThreadedExecutor hands each message to its pool and builds its wait set at the same time. So every
    short callback competes with it for the interpreter's lock. It also hands over a task again and again until a thread
    of the pool takes it (rclpy issue 1452). A short callback finishes sooner in the spinning thread. Services, actions
    and timers may take long; they run in the pool and do not delay messages.

    Exceptions in callbacks are logged and counted. So are exceptions while taking a message, for example when its bytes
    do not fit its type; rclpy would never read that topic again.

    Args:
        threads: size of the pool.
        context: rclpy's context, None for the default one.

    Attributes:
        failures: number of exceptions by topic or service name.
        callbacks: number of callbacks that were run or handed over.
    """

    def __init__(self, threads: int, *, context: Context | None = None) -> None:
        super().__init__(context=context)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="executor")
        self._handed_over: dict[Any, Any] = {}  # task: entity
        self._waiting: set[Any] = set()  # tasks that no thread of the pool has taken yet
        self.failures: Counter[str] = Counter()
        self.callbacks = 0

    def spin(self) -> None:
        """Spin until the executor or its context is shut down.

        rclpy lists the subscriptions and then waits for them. If one is destroyed in between, as when the node is
        deactivated, the wait ends with InvalidHandle (rclpy issue 1284). No message has been taken by then, so it is
        safe to spin again. Other errors of waiting are logged, and waiting is tried again; the last of WAIT_FAILURES
        errors in a row is raised.
        """
        failures = seen = 0
        while self.context.ok() and not self._is_shutdown:
            try:
                super().spin()
            except InvalidHandle as error:
                log.debug(f"an entity was destroyed while it was waited for: {error}")
            except ExternalShutdownException:
                return
            except rclpy_implementation.RCLError as error:
                # If the context was shut down while its entities were listed, there is nothing to wait for.
                if not self.context.ok():
                    return
                failures, seen = (failures + 1 if self.callbacks == seen else 1), self.callbacks
                if failures >= WAIT_FAILURES:
                    raise
                log.error(f"waiting for callbacks failed: {error}")

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait for a callback, at most `timeout_sec`, and run it or hand it over."""
        self._spin_once(timeout_sec, lambda: False)

    def spin_once_until_future_complete(self, future: Future, timeout_sec: Any = None) -> None:
        """Like `spin_once`, but do not wait once `future` is done."""
        future.add_done_callback(lambda _: self.wake())
        self._spin_once(timeout_sec, future.done)

    def _spin_once(self, timeout_sec: Any, condition: Any) -> None:
        try:
            ready: tuple[Any, Any, Any] = self.wait_for_ready_callbacks(timeout_sec, None, condition)
            task, entity, _ = ready
        except (ConditionReachedException, ExternalShutdownException, ShutdownException, TimeoutException):
            return
        self.callbacks += 1
        if isinstance(entity, Subscription):
            task()
            self._note_failure(entity, task.exception())
            return
        if task in self._waiting:
            # rclpy yields a task again until it runs. Sleep, so that the pool's thread gets the interpreter's lock.
            time.sleep(YIELD_S)
            return
        self._waiting.add(task)
        self._handed_over[task] = entity
        self._pool.submit(self._run, task)
        for done in [one for one in self._handed_over if one.done() or one.cancelled()]:
            self._note_failure(self._handed_over.pop(done), done.exception())

    def _run(self, task: Any) -> None:
        self._waiting.discard(task)
        task()

    def _make_handler(self, entity: Any, node: Any, take_from_wait_list: Any) -> Any:
        def take(entity: Any) -> Any:
            try:
                return take_from_wait_list(entity)
            except Exception as error:
                self._note_failure(entity, error)
                return None

        return super()._make_handler(entity, node, take)

    def _note_failure(self, entity: Any, error: BaseException | None) -> None:
        if error is None:
            return
        name = _name(entity)
        self.failures[name] += 1
        count = self.failures[name]
        if count == 1:
            trace = "".join(traceback.format_exception(error))
            log.error(f"a callback of {name} failed:\n{trace}")
        elif count & (count - 1) == 0:  # at 2, 4, 8, ...: a callback may fail a hundred times a second
            log.error(f"a callback of {name} has failed {count} times: {type(error).__name__}: {error}")


def _name(entity: Any) -> str:
    if isinstance(entity, Subscription):
        with contextlib.suppress(InvalidHandle):
            return str(entity.topic_name)
    return str(getattr(entity, "srv_name", type(entity).__name__ if entity is not None else "task"))
