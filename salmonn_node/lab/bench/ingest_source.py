"""A camera of 640x360 at 30 Hz, a microphone in 20 ms chunks and odometry at 50 Hz, from a process of their own."""

from __future__ import annotations

import argparse
import array
import math
import sys
import time
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import rclpy
from nav_msgs.msg import Odometry
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image

from salmonn_interfaces.msg import AudioChunk

WIDTH, HEIGHT = 640, 360
FRAME_HZ, CHUNK_HZ, POSE_HZ = 30, 50, 50
RATE_HZ = 16_000


def main(argv: Sequence[str] | None = None) -> int:
    """Publish for so many seconds and print what was sent, as NAME COUNT, and how late at worst."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--compressed", action="store_true")
    args = parser.parse_args(argv)
    rclpy.init()
    node = rclpy.create_node("ingest_source")
    picture = np.random.default_rng(0).integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    picture = cv2.resize(picture, (WIDTH, HEIGHT))
    if args.compressed:
        image = CompressedImage(format="jpeg", data=array.array("B", cv2.imencode(".jpg", picture)[1].tobytes()))
        frames = node.create_publisher(CompressedImage, "camera/image/compressed", qos_profile_sensor_data)
    else:
        image = Image(height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH)
        image.data = array.array("B", picture.tobytes())
        frames = node.create_publisher(Image, "camera/image", qos_profile_sensor_data)
    samples = (0.1 * np.sin(np.arange(RATE_HZ // CHUNK_HZ) / 5)).astype("<f4")
    chunk = AudioChunk(sample_rate_hz=RATE_HZ, channels=1, encoding=AudioChunk.F32LE)
    chunk.data = array.array("B", samples.tobytes())
    pose = Odometry(child_frame_id="base_link")
    pose.header.frame_id = "map"
    pose.pose.pose.orientation.w = 1.0
    sounds = node.create_publisher(AudioChunk, "microphone/audio", 100)
    poses = node.create_publisher(Odometry, "pose", 50)

    def publish(publisher: object, message: object) -> Callable[[], None]:
        def send() -> None:
            message.header.stamp = node.get_clock().now().to_msg()  # type: ignore[attr-defined]
            publisher.publish(message)  # type: ignore[attr-defined]

        return send

    while not all(p.get_subscription_count() for p in (frames, sounds, poses)):
        time.sleep(0.05)
    streams = {
        "camera": (FRAME_HZ, publish(frames, image)),
        "microphone": (CHUNK_HZ, publish(sounds, chunk)),
        "pose": (POSE_HZ, publish(poses, pose)),
    }
    sent = dict.fromkeys(streams, 0)
    began, worst_s = time.monotonic(), 0.0
    while True:
        name = min(streams, key=lambda n: sent[n] / streams[n][0])
        due = began + sent[name] / streams[name][0]
        if due - began >= args.seconds:
            break
        time.sleep(max(0.0, due - time.monotonic()))
        worst_s = max(worst_s, time.monotonic() - due)
        streams[name][1]()
        sent[name] += 1
    for name, count in sent.items():
        print(name, count)
    print("late_ms", math.ceil(1e3 * worst_s), flush=True)
    time.sleep(1.0)  # the last messages are still on their way
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
