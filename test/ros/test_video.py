"""A node hears video: the type of the topic is that of its publisher, and pictures are decoded when looked at."""

from __future__ import annotations

import array
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import rclpy
from messages.test_video import COUNT, encoded, grey
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import CompressedImage

from ros.harness import PATIENCE_S
from salmonn_node.ros.inputs import Inputs

pytestmark = pytest.mark.ros


class Sink:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.frames: list[Any] = []
        self.refused: Counter[str] = Counter()

    def submit(self, observation: Any) -> str:
        self.frames.append(observation)
        return "queued"

    def refuse(self, source: str, reason: str) -> None:
        self.refused[reason] += 1


def test_packets_of_a_live_topic_become_pictures() -> None:
    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node("video_listener", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    parameters: Any = SimpleNamespace(
        cameras=("front",), microphones=(), pose_type="none", listen_to_tf=False, transports={"front": "video"},
        image_rate_hz=0.0, image_depth=5, image_reliability="reliable", stamp_offsets={},
    )  # fmt: skip
    sink = Sink()
    inputs = Inputs(node, parameters, sink)
    try:
        publisher = node.create_publisher(CompressedImage, "front/image/video", 60)
        clock = node.get_clock()
        until = clock.now().nanoseconds + PATIENCE_S * 1e9
        while publisher.get_subscription_count() == 0 and clock.now().nanoseconds < until:
            inputs.find_types()
            executor.spin_once(timeout_sec=0.05)
        for number, data, _ in encoded("h264"):
            message = CompressedImage(format="h264", data=array.array("B", data))
            message.header.stamp.sec, message.header.stamp.nanosec = 100, number * 30_000_000
            publisher.publish(message)
        while len(sink.frames) < COUNT and clock.now().nanoseconds < until:
            executor.spin_once(timeout_sec=0.05)
        assert len(sink.frames) == COUNT
        assert not sink.refused
        for number in (5, 11, 23):
            assert abs(sink.frames[number].decode().mean() - grey(number)) < 3
    finally:
        inputs.close()
        node.destroy_node()
        rclpy.shutdown(context=context)
