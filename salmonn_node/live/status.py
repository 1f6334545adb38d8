"""Wait for what a node says that its memory holds."""

from __future__ import annotations

import time

import rclpy
from rclpy.executors import SingleThreadedExecutor

from salmonn_interfaces.msg import MemoryStatus
from salmonn_node.client.qos import LATCHED
from salmonn_node.messages import stamp_ns


def await_status(name: str, newest_ns: int, timeout_s: float) -> MemoryStatus:
    """The first status of node `name` whose memory reaches the stamp `newest_ns`; rclpy must be initialised.

    A node sends a status once a second while its memory changes, and the newest one is latched.

    Raises:
        TimeoutError: there was no such status in time.
    """
    heard: list[MemoryStatus] = []
    node = rclpy.create_node(f"{name}_listener")
    node.create_subscription(MemoryStatus, f"/{name}/memory_status", heard.append, LATCHED)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    deadline = time.monotonic() + timeout_s
    try:
        while time.monotonic() < deadline:
            executor.spin_once(0.2)
            if heard and stamp_ns(heard[-1].last_observation) >= newest_ns:
                return heard[-1]
    finally:
        executor.shutdown()
        node.destroy_node()
    reached = f"its memory ends at {stamp_ns(heard[-1].last_observation)} ns" if heard else "it sent no status"
    raise TimeoutError(f"{name} did not observe up to {newest_ns} ns in {timeout_s:.0f} s: {reached}")
