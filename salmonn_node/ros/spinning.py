"""Spins an executor although entities of its nodes are destroyed meanwhile, in other threads."""

from __future__ import annotations

from rclpy.exceptions import InvalidHandle
from rclpy.executors import Executor, ExternalShutdownException
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.logging import get_logger


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
