"""Publisher of MemoryStatus: latched, on change, at most once per second."""

from __future__ import annotations

import copy
from typing import Any

from rclpy.clock import Clock
from rclpy.lifecycle import LifecycleNode

from salmonn_interfaces.msg import MemoryStatus
from salmonn_node.client.qos import LATCHED
from salmonn_node.messages.base import RosTypes
from salmonn_node.messages.memory_status import memory_status_to_message
from salmonn_node.runtime.build import Backend


class StatusPublisher:
    """Publishes on `~/memory_status` while the node is active."""

    def __init__(self, node: LifecycleNode) -> None:
        self._clock: Clock = node.get_clock()
        self._publisher = node.create_lifecycle_publisher(MemoryStatus, "~/memory_status", LATCHED)
        self._last: MemoryStatus | None = None

    def publish(self, backend: Backend) -> None:
        """Publish the status if anything but its stamp has changed."""
        status = memory_status(backend)
        if status == self._last or not self._publisher.is_activated:
            return
        self._last = copy.copy(status)
        status.stamp = self._clock.now().to_msg()
        self._publisher.publish(status)

    def forget(self) -> None:
        """Make the next call publish in any case, so that an activated node publishes its status."""
        self._last = None


def memory_status(backend: Backend) -> MemoryStatus:
    """Status of the running memory, `stamp` zero."""
    observed: Any = backend.observer.status()
    backend.note_snapshots()
    return memory_status_to_message(
        RosTypes(),
        observed,
        encoders=backend.encoders,
        checkpoint_id=backend.checkpoint_id,
        trained=backend.trained,
        persistence=backend.storage,
        reader=backend.reader,
        last_snapshot_ns=backend.last_snapshot_ns,
    )
