"""Recordings as robots leave them: damaged, odd and mixed ones give every whole message, and what is lost is told."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader
from mcap.writer import CompressionType, IndexType
from mcap.writer import Writer as McapWriter
from replay.bags import START_NS, only_file, typestore, write_bag
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import CompressionMode, StoragePlugin
from rosbags.typesys import Stores, get_typestore

from salmonn_node.cli import main
from salmonn_node.replay.bag import Bag
from salmonn_node.replay.bag_stream import BagStream
from salmonn_node.replay.recording_files import BagError
from salmonn_node.replay.storage_file import in_time_order
from salmonn_node.stream.observations import SECOND_NS

HELD = {"/front/image/compressed": 6, "/mic/audio": 12, "/pose": 60}


def observed(path: Path, **arguments: Any) -> tuple[Counter[str], BagStream]:
    """Messages used by topic, and the stream with its account."""
    with BagStream(path, **arguments) as stream:
        times = [log_ns for log_ns, _ in stream]
    assert times == sorted(times)
    return stream.report.used, stream


def told(stream: BagStream) -> str:
    return "\n".join(stream.report.notes + stream.report.differences())


def info(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """`salmonn bag info` accepts whatever a replay accepts."""
    assert main(["bag", "info", str(path)]) == 0
    return capsys.readouterr().out


def messages(file: Path) -> list[tuple[str, str, str, str, int, bytes]]:
    """Topic, type, coding and text of the definition, log time and bytes of each message of an MCAP file."""
    with file.open("rb") as stream:
        found = make_reader(stream).iter_messages(log_time_order=True)
        return [(c.topic, s.name, s.encoding, s.data.decode(), m.log_time, m.data) for s, c, m in found]


def rewrite(source: Path, target: Path, *, finish: bool = True, order: Any = None, **options: Any) -> Path:
    """The messages of an MCAP file, written with other options of the format, or by a recorder that dies."""
    with target.open("wb") as file:
        writer = McapWriter(file, **({"chunk_size": 4_000} | options))
        writer.start("ros2", "test")
        channels: dict[str, int] = {}
        records = messages(source)
        for topic, kind, coding, text, log_ns, data in order(records) if order else records:
            if topic not in channels:
                schema = writer.register_schema(kind, coding, text.encode())
                channels[topic] = writer.register_channel(topic, "cdr", schema)
            writer.add_message(channels[topic], log_ns, data, log_ns)
        if finish:
            writer.finish()
    return target


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag(tmp_path_factory.mktemp("field") / "bag")


@pytest.fixture
def copy(bag: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bag, tmp_path / "bag"))


# -- storage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"use_chunking": False},
        {"use_chunking": False, "index_types": IndexType.NONE, "use_statistics": False, "repeat_channels": False},
        {"compression": CompressionType.NONE},
        {"compression": CompressionType.LZ4},
        {"compression": CompressionType.ZSTD, "index_types": IndexType.NONE},
        {"repeat_channels": False, "repeat_schemas": False},
        {"use_statistics": False},
        {"index_types": IndexType.CHUNK},
        {"finish": False},
        {"finish": False, "compression": CompressionType.NONE},
        {"finish": False, "use_chunking": False},
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_every_way_to_write_mcap_gives_all_messages_in_order(bag, tmp_path, capsys, options, late):
    """Also when one was stamped a millisecond too early by the recorder, at the end of a chunk or in the middle."""

    def one_back(records):
        records = list(records)
        at = len(records) // 2
        records[at] = (*records[at][:4], records[at - 1][4] - 1_000_000, records[at][5])
        return records

    file = rewrite(only_file(bag), tmp_path / "run.mcap", order=one_back if late else None, **options)
    used, stream = observed(file)
    if options.get("finish", True):
        assert used == HELD
        assert all(account.promised == account.read for account in stream.report.topics.values())
    elif options.get("use_chunking", True):
        assert 0 < used.total() <= sum(HELD.values())  # the writer kept its last chunk in memory
    else:
        assert used == HELD
    assert "/front/image/compressed" in info(file, capsys)


@pytest.mark.parametrize("metadata", [True, False])
def test_a_split_bag_whose_last_file_was_cut_off(bag, tmp_path, capsys, metadata):
    """Half of the last file is gone; with metadata.yaml the loss is a number, without it is told in words."""
    folder = tmp_path / "run"
    folder.mkdir()
    records = messages(only_file(bag))
    for number in range(3):
        part = records[number * len(records) // 3 : (number + 1) * len(records) // 3]
        file = folder / f"run_{number}.mcap"
        rewrite(only_file(bag), file, order=lambda _, part=part: part, compression=CompressionType.NONE)
    last = folder / "run_2.mcap"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    if metadata:
        content = yaml.safe_load((bag / "metadata.yaml").read_text())
        content["rosbag2_bagfile_information"]["relative_file_paths"] = ["run_0.mcap", "run_1.mcap"]
        (folder / "metadata.yaml").write_text(yaml.safe_dump(content))
    used, stream = observed(folder)
    # Every message up to the cut, those of the chunk in which it lies among them.
    raw, cut = last.read_bytes(), 0
    for *_, data in records[2 * len(records) // 3 :]:
        cut += data in raw
    assert used.total() == 2 * len(records) // 3 + cut
    assert "run_2.mcap: its recorder did not finish it" in told(stream)
    if metadata:
        assert f"/pose: {used['/pose']} messages read, 60 promised" in told(stream)
        assert "run_2.mcap is read with it, although metadata.yaml does not list it" in told(stream)
    else:
        assert "how many messages there were is not known" in told(stream)
    assert "run_2.mcap" in info(folder, capsys)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1), compression=st.sampled_from(CompressionType))
def test_wherever_a_file_is_cut_the_whole_messages_before_it_are_read(bag, tmp_path, share, compression):
    file = rewrite(only_file(bag), tmp_path / "cut.mcap", compression=compression)
    whole = [(topic, data) for topic, *_, data in messages(only_file(bag))]
    file.write_bytes(file.read_bytes()[: round(share * file.stat().st_size)])
    rest: list[tuple[str, bytes]] = []
    with contextlib.suppress(BagError), Bag(file) as opened:  # of a file without a whole magic nothing can be read
        rest = [(topic, data) for topic, _, _, data in opened.raw()]
    assert not Counter(rest) - Counter(whole)
    if compression is CompressionType.NONE:
        raw = file.read_bytes()
        assert len(rest) >= sum(data in raw for data in {data for _, data in whole}) - 1


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1), value=st.binary(min_size=1, max_size=40))
def test_damage_in_the_middle_loses_a_chunk_and_no_more_than_it_tells(bag, tmp_path, share, value):
    file = rewrite(only_file(bag), tmp_path / "hurt.mcap")
    raw = bytearray(file.read_bytes())
    at = round(share * (len(raw) - len(value)))
    raw[at : at + len(value)] = value
    file.write_bytes(raw)
    try:
        used, stream = observed(file, pose="")
    except BagError:
        return  # the head or the definitions were hit
    lost = HELD["/front/image/compressed"] + HELD["/mic/audio"] - used.total()
    assert lost == 0 or stream.report.differences() or stream.report.notes


def test_a_wrong_checksum_loses_one_chunk_of_a_finished_file(bag, tmp_path):
    file = rewrite(only_file(bag), tmp_path / "hurt.mcap", compression=CompressionType.NONE)
    raw = bytearray(file.read_bytes())
    at = raw.find(b"JFIF") + 30
    raw[at] ^= 0xFF
    file.write_bytes(raw)
    used, stream = observed(file)
    assert sum(HELD.values()) - 20 < used.total() < sum(HELD.values())
    assert "its checksum is wrong" in told(stream)
    assert "promised" in told(stream)


def test_sqlite_with_a_write_ahead_log_of_a_recorder_that_died(tmp_path, capsys):
    """With the shared-memory file beside it and without."""
    live = write_bag(tmp_path / "live", plugin=StoragePlugin.SQLITE3)
    file = only_file(live, "*.db3")
    database = sqlite3.connect(file)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA wal_autocheckpoint=0")
    rows = database.execute("SELECT topic_id, timestamp, data FROM messages WHERE id > 40").fetchall()
    database.execute("DELETE FROM messages WHERE id > 40")
    database.commit()
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    database.executemany("INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)", rows)
    database.commit()
    for ends in (("", "-wal", "-shm"), ("", "-wal")):
        folder = tmp_path / f"dead{len(ends)}"
        folder.mkdir()
        shutil.copy(live / "metadata.yaml", folder)
        for end in ends:
            shutil.copy(f"{file}{end}", folder)
        before = {f.name: f.read_bytes() for f in folder.iterdir()}
        used, stream = observed(folder)
        assert used == HELD
        assert not stream.report.differences()
        assert "-wal is read with it" in told(stream)
        info(folder, capsys)
        assert {f.name: f.read_bytes() for f in folder.iterdir()} == before  # nothing of the recording was changed
    (folder / f"{file.name}-wal").unlink()
    used, stream = observed(folder)
    assert used.total() == 40
    assert "promised" in told(stream)
    database.close()


def test_sqlite_without_metadata_and_with_damaged_pages(tmp_path, capsys):
    folder = write_bag(tmp_path / "bag", plugin=StoragePlugin.SQLITE3, seconds=30)
    whole, _ = observed(folder)
    (folder / "metadata.yaml").unlink()
    used, stream = observed(folder)
    assert used == whole
    assert "metadata.yaml is missing" in told(stream)
    info(folder, capsys)
    file = only_file(folder, "*.db3")
    raw = bytearray(file.read_bytes())
    middle = len(raw) // 8192 * 4096
    raw[middle : middle + 4096] = b"\xff" * 4096
    file.write_bytes(raw)
    used, stream = observed(folder)
    assert whole.total() // 2 < used.total() <= whole.total()
    assert used == whole or "damaged" in told(stream)


@pytest.mark.parametrize("plugin", list(StoragePlugin))
@pytest.mark.parametrize("compression", [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_compression_that_no_metadata_tells_of(tmp_path, capsys, plugin, compression):
    if plugin is StoragePlugin.MCAP and compression is CompressionMode.FILE:
        return
    folder = write_bag(tmp_path / "bag", plugin=plugin, compression=compression)
    (folder / "metadata.yaml").unlink()
    used, stream = observed(folder)
    assert used == HELD
    assert not stream.report.dropped
    info(folder, capsys)


# -- metadata.yaml ----------------------------------------------------------------------------------------------------


def edit(folder: Path, change: Any) -> None:
    content = yaml.safe_load((folder / "metadata.yaml").read_text())
    change(content["rosbag2_bagfile_information"])
    (folder / "metadata.yaml").write_text(yaml.safe_dump(content))


@pytest.mark.parametrize(
    ("qos", "odd"),
    [
        ([{"history": "keep_last", "depth": 3, "reliability": "reliable", "durability": "volatile"}], False),
        ("- history: 1\n  depth: 3\n  durability: 2\n", False),
        ("/front/image/compressed:\n  history: keep_last\n  depth: 10\n", True),
        ({"history": "keep_last"}, True),
        ("{{{", True),
        (7, True),
        (None, False),
    ],
)
def test_qos_that_was_edited_or_has_another_shape_changes_nothing(copy, capsys, qos, odd):
    def change(content):
        for entry in content["topics_with_message_count"]:
            entry["topic_metadata"]["offered_qos_profiles"] = qos

    edit(copy, change)
    used, stream = observed(copy)
    assert used == HELD
    assert ("metadata.yaml: the QoS of /pose has another shape" in told(stream)) == odd
    info(copy, capsys)


def test_what_metadata_says_and_the_files_do_not(copy):
    def change(content):
        content["topics_with_message_count"][0]["message_count"] += 5
        entry = yaml.safe_load(yaml.safe_dump(content["topics_with_message_count"][0]))
        entry["topic_metadata"]["name"] = "/gone"
        content["topics_with_message_count"].append(entry)
        content["relative_file_paths"].append("bag_7.mcap")
        content["version"] = 99

    edit(copy, change)
    used, stream = observed(copy)
    assert used == HELD
    assert "11 promised" in told(stream) or "17 promised" in told(stream) or "65 promised" in told(stream)
    assert "/gone: metadata.yaml promises" in told(stream)
    assert "bag_7.mcap is missing" in told(stream)


@pytest.mark.parametrize("text", ["", "{", "rosbag2_bagfile_information: 7", "rosbag2_bagfile_information: {}"])
def test_a_metadata_file_of_which_nothing_can_be_made(copy, capsys, text):
    (copy / "metadata.yaml").write_text(text)
    used, stream = observed(copy)
    assert used == HELD
    assert "metadata.yaml cannot be used" in told(stream)
    info(copy, capsys)


def test_zeros_that_a_dying_recorder_left_are_no_promise(copy):
    def change(content):
        content["topics_with_message_count"] = []
        content["message_count"] = 0

    edit(copy, change)
    used, stream = observed(copy)
    assert used == HELD
    assert not stream.report.differences()


def test_folders_that_are_no_single_recording_are_refused_by_name(copy, tmp_path):
    (copy / "metadata.yaml").unlink()
    shutil.copy(only_file(copy), copy / "other.mcap")
    with pytest.raises(BagError, match="may be several recordings, name one of them: bag.mcap, other.mcap"):
        Bag(copy)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BagError, match="this is no recording"):
        Bag(tmp_path / "empty")
    (tmp_path / "empty.mcap").touch()
    with pytest.raises(BagError, match="empty.mcap cannot be read: the file is empty"):
        Bag(tmp_path / "empty.mcap")


# -- messages and types -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("coding", "encoding"), [("jsonschema", "json"), ("protobuf", "protobuf"), ("", "json")])
def test_a_channel_that_is_not_of_ros_is_named_and_left_out(bag, tmp_path, capsys, coding, encoding):
    file = tmp_path / "mixed.mcap"
    with file.open("wb") as stream:
        writer = McapWriter(stream)
        writer.start("", "test")  # and no profile
        schema = writer.register_schema("status", coding, b"{}") if coding else 0
        other = writer.register_channel("/web/status", encoding, schema)
        writer.add_message(other, START_NS, b"{}", START_NS)
        channels: dict[str, int] = {}
        for topic, kind, text_coding, text, log_ns, data in messages(only_file(bag)):
            if topic not in channels:
                number = writer.register_schema(kind, text_coding, text.encode())
                channels[topic] = writer.register_channel(topic, "cdr", number)
            writer.add_message(channels[topic], log_ns, data, log_ns)
        writer.finish()
    used, stream = observed(file)
    assert used == HELD
    assert f"/web/status is not used: its messages are {encoding}" in told(stream)
    assert "/web/status" in info(file, capsys)


def test_types_without_msg_and_definitions_that_cannot_be_parsed(bag, tmp_path):
    def older(records):
        return [(t, k.replace("/msg/", "/"), c, text, ns, data) for t, k, c, text, ns, data in records]

    def broken(records):
        return [(t, k, c, "this is no definition {", ns, data) for t, k, c, text, ns, data in records]

    for order in (older, broken):
        used, _ = observed(rewrite(only_file(bag), tmp_path / "run.mcap", order=order))
        assert used == HELD


def test_damaged_messages_are_counted_by_topic_and_end_nothing(bag, tmp_path):
    def hurt(records):
        return [(*r[:5], r[5][: len(r[5]) // 2] if i % 7 == 0 else r[5]) for i, r in enumerate(records)]

    used, stream = observed(rewrite(only_file(bag), tmp_path / "run.mcap", order=hurt))
    left_out = Counter({topic: account.left_out.total() for topic, account in stream.report.topics.items()})
    assert left_out.total() == -(-sum(HELD.values()) // 7)
    assert used + left_out == Counter(HELD)
    assert "messages left out" in told(stream)


def test_a_ros_1_bag_with_camera_info_and_old_tf(tmp_path, capsys):
    """Capital letters in CameraInfo, tf/tfMessage on /tf, frames with a leading slash."""
    import numpy as np
    from replay.bags import jpeg

    store = get_typestore(Stores.ROS1_NOETIC)
    from rosbags.typesys import get_types_from_msg

    store.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", "tf/msg/tfMessage"))
    types = store.types

    def header(stamp: int, frame: str) -> Any:
        time = types["builtin_interfaces/msg/Time"](*divmod(stamp, SECOND_NS))
        return types["std_msgs/msg/Header"](0, time, frame)

    vector, quaternion = types["geometry_msgs/msg/Vector3"], types["geometry_msgs/msg/Quaternion"]
    path = tmp_path / "old.bag"
    with Ros1Writer(path) as writer:
        names = {
            "/cam/image_raw/compressed": "sensor_msgs/msg/CompressedImage",
            "/cam/camera_info": "sensor_msgs/msg/CameraInfo",
            "/tf": "tf/msg/tfMessage",
        }
        connections = {topic: writer.add_connection(topic, kind, typestore=store) for topic, kind in names.items()}

        def write(topic: str, stamp: int, message: Any) -> None:
            writer.write(connections[topic], stamp, store.serialize_ros1(message, names[topic]))

        roi = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
        for second in range(4):
            stamp = START_NS + second * SECOND_NS
            picture = np.frombuffer(jpeg(stamp), np.uint8)
            write(
                "/cam/image_raw/compressed",
                stamp,
                types["sensor_msgs/msg/CompressedImage"](header(stamp, "/cam"), "jpeg", picture),
            )
            k = np.array([100.0, 0, 32, 0, 100, 24, 0, 0, 1])
            info_message = types["sensor_msgs/msg/CameraInfo"](
                header(stamp, "/cam"), 48, 64, "plumb_bob", np.zeros(5), k, np.eye(3).ravel(), np.zeros(12), 0, 0, roi
            )
            write("/cam/camera_info", stamp, info_message)
            place = types["geometry_msgs/msg/Transform"](vector(1.0, 0.0, 0.0), quaternion(0.0, 0.0, 0.0, 1.0))
            transform = types["geometry_msgs/msg/TransformStamped"](header(stamp, "/base_link"), "/cam", place)
            write("/tf", stamp, types["tf/msg/tfMessage"]([transform]))
    with BagStream(path) as stream:
        frames = [observation.frame_id for _, observation in stream]
        assert frames == ["cam"] * 4
        assert not stream.report.dropped
        assert stream.grounding.cameras.at("cam", START_NS).matrix[0, 0] == 100.0
        assert stream.grounding.frames.lookup("base_link", "cam", START_NS).position[0] == 1.0
    assert "camera cam" in info(path, capsys)
    cut = tmp_path / "cut.bag"
    cut.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(BagError, match="rosbag reindex"):
        Bag(cut)


def test_a_topic_that_changed_its_type_is_read_as_the_one_it_mostly_has(tmp_path):
    folder = write_bag(tmp_path / "bag")
    store = typestore()
    other = tmp_path / "other.mcap"
    with other.open("wb") as file:
        writer = McapWriter(file)
        writer.start("ros2", "test")
        text = store.generate_msgdef("strange_msgs/msg/Thing", ros_version=2)[0]
        schema = writer.register_schema("strange_msgs/msg/Thing", "ros2msg", text.encode())
        channel = writer.register_channel("/pose", "cdr", schema)
        writer.add_message(channel, START_NS, b"\0\1\0\0\7\0\0\0", START_NS)
        writer.finish()
    shutil.move(other, folder / "bag_1.mcap")
    (folder / "metadata.yaml").unlink()
    used, stream = observed(folder)
    assert used == HELD
    assert "/pose: 1 messages of type strange_msgs/msg/Thing are not read" in told(stream)


# -- the pieces -------------------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=8), max_size=8))
def test_merging_gives_every_item_in_order_and_opens_sources_late(lists: list[list[int]]) -> None:
    opened: list[int] = []

    def source(number: int):
        opened.append(number)
        return ((time, number) for time in sorted(lists[number]))

    sources = [(min(times), lambda number=number: source(number)) for number, times in enumerate(lists)]
    found = []
    for time, number in in_time_order(sources):
        found.append((time, number))
        assert all(min(lists[n]) <= time for n in opened)
    assert [t for t, _ in found] == sorted(t for times in lists for t in times)
