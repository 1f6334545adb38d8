"""What video topics cost: CPU seconds for each hour of stream at 30 Hz, one frame a second looked at.

    salmonn bench video --seconds 60

A picture of scikit-image pans over the screen with a little sensor noise, encoded by x264 and x265 at `--mbit`. Times
are CPU times of this process, one thread, so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import importlib
import time
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from rich.table import Table

from salmonn_node.messages.video import CameraPictures
from salmonn_node.stream.observations import SECOND_NS

RATE_HZ = 30
SIZES = ((640, 360), (1280, 720))
ENCODERS = {"h264": "libx264", "h265": "libx265"}
HOUR_S = 3600


def run(args: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds for an hour of stream by codec, size and frames between key frames."""
    results: dict[str, Any] = {}
    for width, height in SIZES:
        pictures = _pictures(width, height, args.seconds)
        for codec in ENCODERS:
            for group in args.groups:
                packets = _encoded(pictures, codec, group, args.mbit)
                hour = HOUR_S / args.seconds
                kept = _seconds(packets, codec, looks_hz=0)
                results[f"{codec} {width}x{height}, key frame every {group / RATE_HZ:g} s"] = {
                    "mbit_s": 8e-6 * sum(map(len, packets)) / args.seconds,
                    "keeping_s": hour * kept,
                    "one_look_s": hour * _seconds(packets, codec, looks_hz=1),
                    "every_frame_s": hour * _seconds(packets, codec, looks_hz=RATE_HZ),
                }
    return results


def tables(results: dict[str, Any]) -> list[Table]:
    """One row for each kind of video."""
    table = Table(title="CPU seconds for an hour of stream at 30 Hz")
    for column in ("video", "Mbit/s", "packets kept", "one frame a second", "every frame"):
        table.add_column(column, justify="left" if column == "video" else "right")
    for name, row in results.items():
        seconds = (f"{row[key]:.1f}" for key in ("keeping_s", "one_look_s", "every_frame_s"))
        table.add_row(name, f"{row['mbit_s']:.1f}", *seconds)
    return [table]


def _pictures(width: int, height: int, seconds: int) -> list[npt.NDArray[np.uint8]]:
    """Ten seconds of a pan, there and back until the time is over; RGB."""
    photograph = importlib.import_module("skimage.data").astronaut()
    scene = cv2.resize(photograph, (2 * width, 2 * width), interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(0)
    found = []
    for number in range(10 * RATE_HZ):
        left, top = number * width // (10 * RATE_HZ), number * height // (10 * RATE_HZ)
        window = scene[top : top + height, left : left + width].astype(np.int16)
        noisy = window + noise.normal(0, 2, window.shape).astype(np.int16)
        found.append(np.clip(noisy, 0, 255).astype(np.uint8))
    there_and_back = found + found[::-1]
    return [there_and_back[i % len(there_and_back)] for i in range(seconds * RATE_HZ)]


def _encoded(pictures: list[npt.NDArray[np.uint8]], codec: str, group: int, mbit: float) -> list[bytes]:
    import av

    context: Any = av.CodecContext.create(ENCODERS[codec], "w")
    context.height, context.width = pictures[0].shape[:2]
    context.pix_fmt, context.time_base, context.framerate = "yuv420p", Fraction(1, RATE_HZ), Fraction(RATE_HZ)
    context.gop_size, context.max_b_frames, context.bit_rate = group, 0, round(1e6 * mbit)
    context.options = {"preset": "ultrafast", "tune": "zerolatency"}
    if codec == "h265":
        context.options = {**context.options, "x265-params": "log-level=none"}
    packets = []
    for number, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts = number
        packets += context.encode(frame)
    packets += context.encode(None)
    return [bytes(packet) for packet in packets]


def _seconds(packets: list[bytes], codec: str, looks_hz: int) -> float:
    """CPU seconds for all packets, with `looks_hz` pictures a second."""
    camera = CameraPictures("camera")
    began = time.process_time()
    for number, data in enumerate(packets):
        sec, nanosec = divmod(SECOND_NS + number * SECOND_NS // RATE_HZ, SECOND_NS)
        stamp = SimpleNamespace(sec=sec, nanosec=nanosec)
        frame = camera(_Packet(stamp, "camera", codec, data))
        if looks_hz and number % (RATE_HZ // looks_hz) == 0:
            frame.decode()
    return time.process_time() - began


class _Packet:
    """A CompressedVideo message."""

    def __init__(self, timestamp: Any, frame_id: str, name: str, data: bytes) -> None:
        self.timestamp, self.frame_id, self.format, self.data = timestamp, frame_id, name, data

    def get_fields_and_field_types(self) -> dict[str, str]:
        """Its fields, as rclpy's messages tell them."""
        return {"timestamp": "", "frame_id": "", "data": "", "format": ""}
