"""Bags are made, looked at, cut and read as observations; what is damaged is refused with a reason."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from salmonn_node.cli import main
from salmonn_node.messages.bag_writer import BagWriter
from salmonn_node.replay.bag import Bag
from salmonn_node.replay.bag_stream import BagStream
from salmonn_node.replay.photographs import SECONDS, START_NS, photograph_questions, write_photographs
from salmonn_node.replay.topic_choice import choose_topics
from salmonn_node.stream.observations import SECOND_NS, AudioChunk, EncodedFrame, Frame, Pose


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bag") / "photographs"
    write_photographs(path)
    return path


def test_the_photographs_make_a_small_bag_of_what_a_robot_sends(photographs: Path) -> None:
    assert sum(f.stat().st_size for f in photographs.iterdir()) < 8_000_000
    kinds: Counter[type] = Counter()
    with Bag(photographs) as bag:
        assert bag.start_ns == START_NS
        chosen = choose_topics(bag)
        roles = {t.name: chosen.used_as(t.name) for t in bag.topics}
    with BagStream(photographs, map_id="flat") as stream:
        for _, observation in stream:
            kinds[type(observation)] += 1
            if isinstance(observation, EncodedFrame):
                assert observation.decode().shape == (360, 640, 3)
            if isinstance(observation, Pose):
                assert observation.map_id == "flat"
    assert roles == {
        "/front/camera_info": "camera_info front",
        "/front/image/compressed": "camera front",
        "/mic/audio": "microphone mic",
        "/odom": "pose",
    }
    assert kinds == {EncodedFrame: 160, AudioChunk: 1000, Pose: 400}
    assert all(record.ask_ns <= START_NS + SECONDS * SECOND_NS for record in photograph_questions())


def test_the_photographs_are_the_same_each_time(photographs: Path, tmp_path: Path) -> None:
    write_photographs(tmp_path / "again")
    with Bag(photographs) as one, Bag(tmp_path / "again") as two:
        assert all(a == b for a, b in zip(one.raw(), two.raw(), strict=True))


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    sound = np.linspace(-1, 1, 480, dtype=np.float32).reshape(-1, 2)
    pose = Pose(3 * SECOND_NS, "map", np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.0, 0.6, 0.8]), np.eye(6))
    with BagWriter(tmp_path / "bag", jpeg_quality=0) as bag:
        bag.frame(Frame(SECOND_NS, "front", image, "front_optical"))
        bag.sound(AudioChunk(2 * SECOND_NS, "mic", sound, 48_000, "mic_link"))
        bag.pose(pose)
    with BagStream(tmp_path / "bag", pose="/odom") as bag:
        frame, chunk, place = [observation for _, observation in bag]
    assert isinstance(frame, EncodedFrame)
    assert (frame.stamp_ns, frame.source, frame.frame_id) == (SECOND_NS, "front", "front_optical")
    assert np.array_equal(frame.decode(), image)
    assert isinstance(chunk, AudioChunk)
    assert (chunk.rate_hz, chunk.source, chunk.frame_id) == (48_000, "mic", "mic_link")
    assert np.abs(chunk.samples - sound).max() < 1e-4
    assert isinstance(place, Pose)
    assert np.allclose(place.position, pose.position)
    assert np.allclose(place.covariance, np.eye(6))


def test_damaged_messages_are_refused_with_a_reason(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        new = bag.types.new
        time = new("builtin_interfaces/msg/Time", sec=0, nanosec=0)
        header = new("std_msgs/msg/Header", stamp=time, frame_id="")
        data = np.zeros(10, np.uint8)
        bag.write(
            "/camera/image/compressed",
            new("sensor_msgs/msg/CompressedImage", header=header, format="jpeg", data=data),
            SECOND_NS,
        )
    with BagStream(tmp_path / "bag") as bag:
        assert list(bag) == []
        assert bag.report.dropped == {"stamp_zero": 1}
        (line,) = bag.report.differences()
        assert line.startswith("/camera/image/compressed: 1 of 1 messages left out, stamp_zero")


def test_the_command_line(photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bag", "info", str(photographs)]) == 0
    assert "camera front" in capsys.readouterr().out
    assert main(["bag", "cut", str(photographs), str(tmp_path / "cut"), "--start", "5", "--duration", "4"]) == 0
    with Bag(tmp_path / "cut") as bag:
        assert bag.start_ns >= START_NS + 5 * SECOND_NS
        assert bag.duration_s == pytest.approx(4.0, abs=0.1)
    assert main(["bag", "cut", str(photographs), str(tmp_path / "cut")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["bag", "info", str(tmp_path / "nothing")]) == 2
    assert "no such file or directory" in capsys.readouterr().err
