"""An executor goes on when something it waits for is destroyed."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.executors import MultiThreadedExecutor
from rclpy.waitable import NumberOfEntities, Waitable

from salmonn_node.ros.spinning import spin

from .harness import PATIENCE_S, Robot

pytestmark = pytest.mark.ros


class Destroyed(Waitable):
    """What an event handler is once, between being listed and being waited for, when its subscription is destroyed."""

    def __init__(self) -> None:
        super().__init__(ReentrantCallbackGroup())
        self.hits = 0

    def get_num_entities(self) -> NumberOfEntities:
        return NumberOfEntities()

    def add_to_wait_set(self, wait_set: Any) -> None:
        self.hits += 1
        if self.hits == 1:
            raise InvalidHandle("cannot use Destroyable because destruction was requested")

    def is_ready(self, wait_set: Any) -> bool:
        return False

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def test_spinning_survives_a_destroyed_entity_and_ends_at_shutdown(robot: Robot) -> None:
    import rclpy

    node = rclpy.create_node("survivor")
    gone, ticked = Destroyed(), threading.Event()
    node.add_waitable(gone)
    node.create_timer(0.01, lambda: ticked.set() if gone.hits > 1 else None)
    executor = MultiThreadedExecutor(2)
    executor.add_node(node)
    thread = threading.Thread(target=spin, args=(executor,), daemon=True)
    thread.start()
    assert ticked.wait(PATIENCE_S), "timers go on"
    executor.shutdown()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    node.destroy_node()
