"""The message types that bags are written and read with: ROS 2 Jazzy's, those of video, and salmonn_interfaces."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rosbags.typesys import Stores, get_types_from_msg, get_typestore

PACKAGE = "salmonn_interfaces"

# Fields of the types that video travels in, for recordings from before Iron, which carry no definitions.
VIDEO_TYPES = {
    "foxglove_msgs/msg/CompressedVideo": (
        "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n"
    ),
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket": (
        "std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\nuint8 flags\n"
        "bool is_bigendian\nuint8[] data\n"
    ),
}
# Fields of the types that Foxglove draws on pictures.
ANNOTATION_TYPES = {
    "foxglove_msgs/msg/Point2": "float64 x\nfloat64 y\n",
    "foxglove_msgs/msg/Color": "float64 r\nfloat64 g\nfloat64 b\nfloat64 a\n",
    "foxglove_msgs/msg/CircleAnnotation": (
        "builtin_interfaces/Time timestamp\nfoxglove_msgs/Point2 position\nfloat64 diameter\nfloat64 thickness\n"
        "foxglove_msgs/Color fill_color\nfoxglove_msgs/Color outline_color\n"
    ),
    "foxglove_msgs/msg/PointsAnnotation": (
        "uint8 UNKNOWN=0\nuint8 POINTS=1\nuint8 LINE_LOOP=2\nuint8 LINE_STRIP=3\nuint8 LINE_LIST=4\n"
        "builtin_interfaces/Time timestamp\nuint8 type\nfoxglove_msgs/Point2[] points\n"
        "foxglove_msgs/Color outline_color\nfoxglove_msgs/Color[] outline_colors\nfoxglove_msgs/Color fill_color\n"
        "float64 thickness\n"
    ),
    "foxglove_msgs/msg/TextAnnotation": (
        "builtin_interfaces/Time timestamp\nfoxglove_msgs/Point2 position\nstring text\nfloat64 font_size\n"
        "foxglove_msgs/Color text_color\nfoxglove_msgs/Color background_color\n"
    ),
    "foxglove_msgs/msg/ImageAnnotations": (
        "foxglove_msgs/CircleAnnotation[] circles\nfoxglove_msgs/PointsAnnotation[] points\n"
        "foxglove_msgs/TextAnnotation[] texts\n"
    ),
}


@functools.cache
def bag_typestore() -> Any:
    """A rosbags typestore that knows them; raises FileNotFoundError when salmonn_interfaces is not installed."""
    store = get_typestore(Stores.ROS2_JAZZY)
    folder = next((f for f in _folders() if (f / "AudioChunk.msg").is_file()), None)
    if folder is None:
        raise FileNotFoundError(f"{PACKAGE}/msg not found: install it with pip or colcon, or source its workspace")
    for name, text in (VIDEO_TYPES | ANNOTATION_TYPES).items():
        store.register(get_types_from_msg(text, name))
    for path in sorted(folder.glob("*.msg")):
        store.register(get_types_from_msg(path.read_text(encoding="utf-8"), f"{PACKAGE}/msg/{path.stem}"))
    return store


def _folders() -> Iterator[Path]:
    for prefix in [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]:
        if prefix:
            yield Path(prefix) / "share" / PACKAGE / "msg"
    yield Path(sys.prefix) / "share" / "salmonn_node" / PACKAGE / "msg"  # of a wheel, where there is no ROS
    yield Path(__file__).parents[2] / PACKAGE / "msg"
