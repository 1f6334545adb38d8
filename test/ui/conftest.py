"""A ROS graph of its own, a real node, the real page in a process of its own, and a headless browser."""

from __future__ import annotations

import os

# Before any rclpy.init: tests must not meet a robot next door, nor each other.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
