"""Video in a recording is a camera: frames are looked at once a second, each decoded from its key frame on."""

from __future__ import annotations

from pathlib import Path

import pytest
from messages.test_video import COUNT, encoded, grey
from replay.bags import START_NS
from rosbags.rosbag2 import StoragePlugin, Writer

from salmonn_node.messages import RosbagsTypes
from salmonn_node.messages.bag_types import VIDEO_TYPES, bag_typestore
from salmonn_node.messages.base import header_message, time_message
from salmonn_node.replay.bag_stream import BagStream
from salmonn_node.stream.observations import SECOND_NS, EncodedFrame

RATE_HZ = 8


def write_video_bag(path: Path, codec: str, msgtype: str, *, first: int = 0) -> Path:
    """A bag of one video topic that begins with packet `first`, and of nothing else."""
    store = bag_typestore()
    make = RosbagsTypes(store)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/front/image_raw/ffmpeg", msgtype, typestore=store)
        for number, data, key in encoded(codec)[first:]:
            stamp = START_NS + number * SECOND_NS // RATE_HZ
            if msgtype.startswith("foxglove"):
                fields = {"timestamp": time_message(make, stamp), "frame_id": "cam", "format": codec}
            else:
                fields = {"header": header_message(make, stamp, "cam"), "width": 64, "height": 48, "pts": number}
                fields |= {"encoding": f"{codec};yuv420p;bgr8;bgr8", "flags": int(key), "is_bigendian": False}
            message = make.new(msgtype, data=make.data(data), **fields)
            writer.write(connection, stamp, store.serialize_cdr(message, msgtype))
    return path


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("msgtype", sorted(VIDEO_TYPES))
def test_one_look_a_second(tmp_path: Path, codec: str, msgtype: str) -> None:
    with BagStream(write_video_bag(tmp_path / "bag", codec, msgtype)) as stream:
        assert stream.topics.cameras == {"front": "/front/image_raw/ffmpeg"}
        means = {}
        for number, (_, frame) in enumerate(stream):
            assert isinstance(frame, EncodedFrame)
            assert (frame.stamp_ns, frame.frame_id) == (START_NS + number * SECOND_NS // RATE_HZ, "cam")
            if number % RATE_HZ == 5:
                means[number] = frame.decode().mean()
    assert len(means) == COUNT // RATE_HZ
    assert all(abs(mean - grey(number)) < 3 for number, mean in means.items())
    assert not stream.report.differences()


def test_a_recording_that_begins_between_key_frames_says_what_it_lacks(tmp_path: Path) -> None:
    with BagStream(write_video_bag(tmp_path / "bag", "h264", sorted(VIDEO_TYPES)[0], first=3)) as stream:
        frames = [frame for _, frame in stream]
    assert len(frames) == COUNT - 8
    (line,) = stream.report.differences()
    assert line.startswith("/front/image_raw/ffmpeg: 5 of 21 messages left out, video_no_key_frame")
