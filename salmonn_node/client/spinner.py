"""A hidden node with its own spinning thread, so that a client can wait whether or not the caller's node is spun."""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future

POLL_S = 0.05  # how often a waiting thread checks `cancel` and looks for a missing server
CONTEXT_LOOK_S = 0.2  # how often a waiting caller checks whether rclpy was shut down
JOIN_S = 2.0
log = logging.getLogger(__name__)
_numbers = itertools.count()


class Spinner:
    """Owns a node in the caller's context, and the thread that spins it.

    rclpy does not say whether a node is being spun: a node keeps its executor even when that no longer spins. So a
    client on the caller's node might wait forever, or spin a node that another thread already spins.

    Args:
        node: the caller's node; gives context and namespace.

    Attributes:
        node: the hidden node on which to create clients. It has no remappings; resolve names with the caller's node.
    """

    def __init__(self, node: Node) -> None:
        self._context = node.context
        self.node = rclpy.create_node(
            f"_memory_client_{os.getpid()}_{next(_numbers)}_{secrets.token_hex(4)}",
            context=self._context,
            namespace=node.get_namespace(),
            use_global_arguments=False,
            enable_rosout=False,
            start_parameter_services=False,
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=_spin, args=(self._executor,), name="memory-client", daemon=True)
        self._thread.start()
        # This also runs at interpreter exit, where a thread inside rclpy would cause trouble.
        self._closer = weakref.finalize(self, _close, self._executor, self._thread, self.node)

    def close(self) -> None:
        """Stop the thread and destroy the node; safe to call twice."""
        self._closer()

    @property
    def is_open(self) -> bool:
        """Whether it still spins: neither this spinner nor rclpy is shut down."""
        return bool(self._closer.alive and self._context.ok())

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in the spinning thread, for rclpy calls that are not thread-safe; returns its result.

        Raises:
            RuntimeError: rclpy was shut down, or the client was closed.
            Exception: whatever the function raises.
        """
        outcome: list[tuple[Any, Exception | None]] = []

        def call() -> None:
            try:
                outcome.append((function(*arguments), None))
            except Exception as error:
                outcome.append((None, error))

        if self.is_open:
            self.wait(self._executor.create_task(call), float("inf"))
        if not outcome:
            raise RuntimeError("rclpy was shut down, or the client was closed")
        result, error = outcome[0]
        if error is not None:
            raise error
        return result

    def wait(self, future: Future, deadline: float) -> bool:
        """Wait for a future until `deadline` (time.monotonic). Returns whether it is done."""
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        while self.is_open and not done.wait(max(0.0, min(CONTEXT_LOOK_S, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                break
        return bool(future.done())


def _spin(executor: SingleThreadedExecutor) -> None:
    while executor.context.ok():
        try:
            executor.spin()
            return
        except ExternalShutdownException:
            return
        except Exception as error:
            log.warning("the client's executor continues after %s: %s", type(error).__name__, error)


def _close(executor: SingleThreadedExecutor, thread: threading.Thread, node: Node) -> None:
    executor.shutdown()
    if thread is not threading.current_thread():  # the garbage collector runs anywhere
        thread.join(JOIN_S)
    node.destroy_node()
