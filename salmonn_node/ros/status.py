"""Publisher of MemoryStatus: latched, on change, at most once per second."""

from __future__ import annotations

import copy
from typing import Any

from rclpy.clock import Clock
from rclpy.lifecycle import LifecycleNode

from salmonn_interfaces.msg import DropCount, MemoryStatus
from salmonn_node.client.qos import LATCHED
from salmonn_node.messages.base import RosTypes, time_message
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
    types = RosTypes()
    observed: Any = backend.observer.status()
    backend.note_snapshots()
    vision, audio = backend.encoders["vision"], backend.encoders["audio"]
    return MemoryStatus(
        memory_id=observed.memory_id,
        session=observed.session,
        memory_start=time_message(types, observed.start_ns),
        last_observation=time_message(types, observed.newest_ns),
        frames=observed.frames,
        audio_s=float(observed.audio_s),
        poses=observed.poses,
        visual_tokens=observed.tokens[0],
        visual_budget=observed.budgets[0],
        audio_tokens=observed.tokens[1],
        audio_budget=observed.budgets[1],
        drops=[DropCount(reason=r, count=n) for r, n in sorted(observed.drops.items())],
        vision_backend=vision[0],
        vision_backend_reason=vision[1],
        audio_backend=audio[0],
        audio_backend_reason=audio[1],
        checkpoint_id=backend.checkpoint_id,
        checkpoint_trained=backend.trained,
        last_snapshot=time_message(types, backend.last_snapshot_ns),
        persistence=backend.storage,
    )
