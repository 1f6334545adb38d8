"""A long bag: the demo's recording again and again, each time with later stamps."""

from __future__ import annotations

from pathlib import Path

from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer

from salmonn_node.live.demo_recording import BAG
from salmonn_node.messages.bag_types import bag_typestore
from salmonn_node.messages.base import stamp_ns
from salmonn_node.stream.observations import SECOND_NS

TILE_NS = 84 * SECOND_NS


def write_tiled(path: Path, tiles: int) -> int:
    """Write the demo's recording `tiles` times in a row; returns its first stamp. The static transform comes once."""
    store = bag_typestore()
    with (
        AnyReader([BAG], default_typestore=store) as reader,
        Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer,
    ):
        topics = {
            c.topic: writer.add_connection(
                c.topic, c.msgtype, typestore=store, offered_qos_profiles=c.ext.offered_qos_profiles
            )
            for c in reader.connections
        }
        messages = [(c, log_ns, reader.deserialize(raw, c.msgtype)) for c, log_ns, raw in reader.messages()]
        stamps = [stamp_ns(m.header.stamp) if hasattr(m, "header") else 0 for _, _, m in messages]
        for tile in range(tiles):
            for (connection, log_ns, message), stamp in zip(messages, stamps, strict=True):
                if stamp:
                    stamp += tile * TILE_NS
                    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, SECOND_NS)
                elif tile:
                    continue
                raw = store.serialize_cdr(message, connection.msgtype)
                writer.write(topics[connection.topic], log_ns + tile * TILE_NS, raw)
        return int(reader.start_time)
