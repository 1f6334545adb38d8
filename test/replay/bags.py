"""Bags written with rosbags, for the tests of the replay: real message types, real files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import get_types_from_msg

from salmonn_node.messages import RosbagsTypes, pose_to_message
from salmonn_node.messages.bag_types import bag_typestore
from salmonn_node.messages.base import header_message
from salmonn_node.stream.observations import SECOND_NS, Pose

START_NS = 1_000 * SECOND_NS


def typestore() -> Any:
    """The project's types and one that nobody knows."""
    store = bag_typestore.__wrapped__()
    store.register(get_types_from_msg("int32 value", "strange_msgs/msg/Thing"))
    return store


def jpeg(stamp_ns: int, width: int = 64, height: int = 48) -> bytes:
    """A picture whose brightness tells its time."""
    image = np.full((height, width, 3), (stamp_ns // SECOND_NS * 7) % 256, np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()


def write_bag(
    path: Path,
    *,
    seconds: float = 6.0,
    camera: bool = True,
    sound: bool = True,
    pose: bool = True,
    strange: bool = False,
    stamps: Iterable[int] | None = None,
    plugin: StoragePlugin = StoragePlugin.MCAP,
    compression: CompressionMode = CompressionMode.NONE,
) -> Path:
    """Write a bag: a picture a second, sound in pieces of half a second, a pose ten times a second."""
    store = typestore()
    make = RosbagsTypes(store)
    writer = Writer(path, version=9, storage_plugin=plugin)
    if compression is not CompressionMode.NONE:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        messages: list[tuple[int, str, Any]] = []
        if camera:
            for stamp in stamps or (START_NS + i * SECOND_NS for i in range(int(seconds))):
                picture = make.new(
                    "sensor_msgs/msg/CompressedImage",
                    header=header_message(make, stamp, "camera_optical"),
                    format="jpeg",
                    data=make.data(jpeg(stamp)),
                )
                messages.append((stamp, "/front/image/compressed", picture))
        if sound:
            for i in range(int(2 * seconds)):
                stamp = START_NS + i * SECOND_NS // 2
                data = np.zeros(8_000, np.int16).tobytes()
                chunk = make.new(
                    "salmonn_interfaces/msg/AudioChunk",
                    header=header_message(make, stamp, "mic"),
                    sample_rate_hz=16_000,
                    channels=1,
                    encoding=0,
                    data=make.data(data),
                )
                messages.append((stamp + SECOND_NS // 2, "/mic/audio", chunk))
        if pose:
            for i in range(int(10 * seconds)):
                stamp = START_NS + i * SECOND_NS // 10
                where = Pose(stamp, "map", np.array([0.1 * i, 0.0, 0.0]), np.array([0.0, 0.0, 0.0, 1.0]))
                messages.append((stamp, "/pose", pose_to_message(make, where)))
        if strange:
            messages.append((START_NS, "/thing", make.new("strange_msgs/msg/Thing", value=1)))
        connections = {}
        for _, topic, message in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, message.__msgtype__, typestore=store)
        for stamp, topic, message in sorted(messages, key=lambda item: item[0]):
            writer.write(connections[topic], stamp, store.serialize_cdr(message, message.__msgtype__))
    return path


def only_file(bag: Path, pattern: str = "*.mcap") -> Path:
    """The one storage file of a bag."""
    (file,) = bag.glob(pattern)
    return file
