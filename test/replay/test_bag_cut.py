"""A cut holds what listeners would have known at its beginning, stays readable, and is whole or not there at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.reader import make_reader
from replay.bags import START_NS, only_file, typestore, write_bag
from rosbags.rosbag2 import StoragePlugin, Writer

from salmonn_node.cli import main
from salmonn_node.messages.bag_writer import LATCHED, BagWriter
from salmonn_node.replay.bag import Bag
from salmonn_node.replay.bag_cut import cut_bag, whole_or_nothing
from salmonn_node.replay.bag_stream import BagStream
from salmonn_node.stream.observations import SECOND_NS, Frame, Pose

LEVEL = np.array([0.0, 0.0, 0.0, 1.0])


def mount(frame: str, x: float) -> Pose:
    return Pose(0, "base_link", np.array([x, 0.0, 0.0]), LEVEL, child_frame_id=frame)


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two publishers of /tf_static and one CameraInfo at the start, a picture a second for twenty seconds."""
    path = tmp_path_factory.mktemp("cut") / "bag"
    with BagWriter(path) as writer:
        writer.transforms(START_NS, [mount("front", 0.2)], static=True)
        writer.transforms(START_NS, [mount("rear", -0.2)], static=True)
        writer.camera_info(START_NS, "front", "front", (64, 48), 50.0)
        for second in range(20):
            stamp = START_NS + second * SECOND_NS
            writer.frame(Frame(stamp, "front", np.full((48, 64, 3), 9 * second, np.uint8), "front"))
            writer.pose(Pose(stamp, "map", np.array([float(second), 0, 0]), LEVEL))
    return path


def test_what_is_latched_and_camera_info_come_along(bag: Path, tmp_path: Path) -> None:
    cut = cut_bag(bag, tmp_path / "cut", start_s=5.0, duration_s=10.0)
    assert cut.carried == {"/tf_static": 2, "/front/camera_info": 1}
    assert cut.copied == {"/front/image/compressed": 10, "/odom": 10}
    with BagStream(tmp_path / "cut") as stream:
        stamps = [observation.stamp_ns for _, observation in stream]
        assert min(stamps) == START_NS + 5 * SECOND_NS
        for frame, x in (("front", 0.2), ("rear", -0.2)):
            assert stream.grounding.frames.lookup("base_link", frame, stamps[0]).position[0] == x
        assert stream.grounding.cameras.at("front", stamps[0]).matrix[0, 0] == 50.0
    with Bag(tmp_path / "cut") as again:
        assert {t.name for t in again.topics if t.latched} == {"/tf_static"}
        assert again.start_ns == START_NS + 5 * SECOND_NS


def test_latched_topics_of_any_type_and_types_of_ones_own(tmp_path: Path) -> None:
    store = typestore()
    folder = write_bag(tmp_path / "bag", strange=True)
    latched = tmp_path / "latched"
    thing = store.types["strange_msgs/msg/Thing"]
    with Bag(folder) as source, Writer(latched, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        state = writer.add_connection(
            "/state", "strange_msgs/msg/Thing", typestore=store, offered_qos_profiles=[LATCHED]
        )
        for value, second in ((1, 0), (2, 1)):
            data = store.serialize_cdr(thing(value), "strange_msgs/msg/Thing")
            writer.write(state, START_NS + second * SECOND_NS, data)
        connections: dict[str, Any] = {}
        for topic, msgtype, log_ns, data in source.raw():
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, msgtype, typestore=store)
            writer.write(connections[topic], log_ns, data)
    cut = cut_bag(latched, tmp_path / "cut", start_s=3.0, all_topics=True)
    assert cut.carried == {"/state": 1}
    with Bag(tmp_path / "cut") as again:
        assert again.first("/state").value == 2
        assert again.channels["/state"].definition.strip() == "int32 value"
    with only_file(tmp_path / "cut").open("rb") as file:
        names = {schema.name for schema in make_reader(file).get_summary().schemas.values()}
    assert "strange_msgs/msg/Thing" in names
    assert cut_bag(latched, tmp_path / "used", start_s=3.0).left_out == {
        "/state": "the memory has no use for it",
        "/thing": "the memory has no use for it",
    }


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--start", "500"], "no message lies in this stretch"),
        (["--start", "-1"], "must not be negative"),
    ],
)
def test_a_failure_leaves_nothing_behind(bag: Path, tmp_path: Path, capsys, arguments: list[str], reason: str) -> None:
    assert main(["bag", "cut", str(bag), str(tmp_path / "cut"), *arguments]) == 2
    assert reason in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing_behind(bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Writer, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cut_bag(bag, tmp_path / "cut")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_gets_its_name_when_all_is_written(tmp_path: Path) -> None:
    with whole_or_nothing(tmp_path / "out") as folder:
        folder.mkdir()
        assert not (tmp_path / "out").exists()
        (folder / "file").touch()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    with pytest.raises(FileExistsError, match="exists already"), whole_or_nothing(tmp_path / "out"):
        pass


def test_a_damaged_recording_is_cut_and_what_it_lacks_is_told(bag: Path, tmp_path: Path, capsys) -> None:
    file = tmp_path / "hurt.mcap"
    raw = only_file(bag).read_bytes()
    file.write_bytes(raw[: len(raw) // 2])
    assert main(["bag", "cut", str(file), str(tmp_path / "cut"), "--start", "1"]) == 0
    assert "its recorder did not finish it" in capsys.readouterr().out
    assert main(["bag", "info", str(tmp_path / "cut")]) == 0
