"""Bags of every storage give the same observations; damage is said, counted and never stops the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
from replay.bags import START_NS, only_file, write_bag
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from salmonn_node.replay.bag_stream import BagStream
from salmonn_node.replay.recording_files import BagError
from salmonn_node.stream.observations import AudioChunk, EncodedFrame, Pose


def observed(path: Path, **arguments) -> tuple[list, BagStream]:
    with BagStream(path, **arguments) as stream:
        return list(stream), stream


def kinds(observations: list) -> dict[type, int]:
    return {kind: sum(type(o) is kind for _, o in observations) for kind in (EncodedFrame, AudioChunk, Pose)}


@pytest.mark.parametrize("plugin", list(StoragePlugin))
@pytest.mark.parametrize("compression", [CompressionMode.NONE, CompressionMode.FILE, CompressionMode.MESSAGE])
def test_every_storage_gives_all_observations_in_order(tmp_path, plugin, compression):
    if plugin is StoragePlugin.MCAP and compression is CompressionMode.FILE:
        return  # rosbag2 compresses MCAP inside its chunks, not as a file
    observations, stream = observed(write_bag(tmp_path / "bag", plugin=plugin, compression=compression))
    assert kinds(observations) == {EncodedFrame: 6, AudioChunk: 12, Pose: 60}
    times = [t for t, _ in observations]
    assert times == sorted(times)
    assert not stream.report.dropped
    frame = next(o for _, o in observations if isinstance(o, EncodedFrame))
    assert (frame.stamp_ns, frame.source, frame.frame_id) == (START_NS, "front", "camera_optical")
    assert frame.decode().shape == (48, 64, 3)


def test_a_bare_file_and_a_directory_without_metadata_are_read(tmp_path):
    bag = write_bag(tmp_path / "bag")
    bare, _ = observed(only_file(bag))
    (bag / "metadata.yaml").unlink()
    folder, stream = observed(bag)
    assert kinds(bare) == kinds(folder)
    assert any("metadata.yaml is missing" in note for note in stream.report.notes)


@pytest.mark.parametrize("lost_bytes", [8, 40, 2_000, 20_000])
def test_a_truncated_mcap_is_replayed_as_far_as_it_goes(tmp_path, lost_bytes):
    file = only_file(write_bag(tmp_path / "bag", seconds=30))
    whole, _ = observed(file)
    file.write_bytes(file.read_bytes()[:-lost_bytes])
    rest, stream = observed(file)
    assert 0 <= len(rest) <= len(whole)
    assert any("its recorder did not finish it" in n or "its end is cut off" in n for n in stream.report.notes)
    if lost_bytes == 8:
        assert len(rest) == len(whole)


def test_a_file_that_is_no_bag_is_named(tmp_path):
    path = tmp_path / "bag.mcap"
    path.write_bytes(b"not a bag at all, not even close")
    with pytest.raises(BagError, match="not an MCAP file"):
        BagStream(path)
    with pytest.raises(BagError, match="no such file"):
        BagStream(tmp_path / "absent")
    broken = write_bag(tmp_path / "sqlite", plugin=StoragePlugin.SQLITE3)
    only_file(broken, "*.db3").write_bytes(b"rubbish" * 100)
    with pytest.raises(BagError, match="cannot be read as a recording: sqlite.db3 cannot be read: not a SQLite file"):
        BagStream(broken)


def test_a_bag_without_camera_says_so_and_one_without_anything_is_refused(tmp_path):
    observations, stream = observed(write_bag(tmp_path / "deaf", sound=False))
    assert kinds(observations)[AudioChunk] == 0
    assert any("no microphone" in note for note in stream.report.notes)
    observations, stream = observed(write_bag(tmp_path / "blind", camera=False))
    assert kinds(observations)[EncodedFrame] == 0
    assert any("no camera" in note for note in stream.report.notes)
    with pytest.raises(BagError, match="no camera and no microphone"):
        BagStream(write_bag(tmp_path / "neither", camera=False, sound=False))


def test_unknown_types_are_named_and_stamps_of_zero_counted(tmp_path):
    observations, stream = observed(write_bag(tmp_path / "bag", strange=True, stamps=[0, START_NS]))
    assert stream.topics.ignored["/thing"] == "type strange_msgs/msg/Thing is not a camera, microphone or pose"
    assert stream.report.topics["/front/image/compressed"].left_out == {"stamp_zero": 1}
    assert stream.report.dropped == {"stamp_zero": 1}
    assert kinds(observations)[EncodedFrame] == 1


def test_topics_can_be_told_and_a_wrong_one_is_named(tmp_path):
    bag = write_bag(tmp_path / "bag")
    observations, _ = observed(bag, cameras=("/front/image/compressed",), pose="")
    assert kinds(observations)[Pose] == 0
    with pytest.raises(BagError, match="no such topic in the bag: /rear"):
        BagStream(bag, cameras=("/rear",))
