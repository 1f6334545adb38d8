"""The journal gives back, bit for bit, every record before the first damage, and says what stopped it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from storage.faulty_files import FaultyFiles
from storage.ledger import observation

from salmonn_node.storage.files import FileLayer
from salmonn_node.storage.journal import JournalReader, JournalWriter, Mark, decode_record, encode_record
from salmonn_node.stream.observations import AudioSpan, Frame, Pose

names = st.text(max_size=20)
stamps = st.integers(0, 2**62)
floats = st.floats(width=64)
frames = st.builds(
    Frame, stamps, names, arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))), names
)
spans = st.builds(AudioSpan, stamps, names, arrays.arrays(np.float32, st.integers(0, 40)), names)
poses = st.builds(
    Pose, stamps, names, arrays.arrays(np.float64, 3), arrays.arrays(np.float64, 4),
    st.none() | arrays.arrays(np.float64, (6, 6)), names, names,
)  # fmt: skip
marks = st.builds(Mark, names, st.dictionaries(names, st.integers() | names | st.booleans(), max_size=3))


def write(path: Path, count: int, **options) -> list[int]:
    """Write `count` records; returns the file's length after each."""
    writer = JournalWriter(FileLayer(), path, {"continues": [0, 0]}, sync_period_s=0.0, **options)
    ends = [writer.bytes]
    for n in range(count):
        assert writer.append(observation(n))
        ends.append(writer.bytes)
    writer.close()
    return ends


@given(frames | spans | poses | marks, st.booleans())
@settings(max_examples=200, deadline=None)
def test_records_come_back_bit_for_bit(record, compress):
    back = decode_record(encode_record(record, compress))
    assert type(back) is type(record)
    for key, value in record.__dict__.items():
        other = getattr(back, key)
        if isinstance(value, np.ndarray):
            assert other.dtype == value.dtype
            assert other.shape == value.shape
            both_nan = value.dtype == np.float64 and np.array_equal(value, other, equal_nan=True)
            assert both_nan or other.tobytes() == value.tobytes()  # JSON keeps no payload of a float64 NaN
        else:
            assert other == value


def test_sixteen_bit_sound_is_stored_in_sixteen_bits():
    short = np.arange(-32768, 32767, 7, np.int32)
    exact = AudioSpan(1, "mic", (short / 32768).astype(np.float32))
    fine = AudioSpan(1, "mic", (short / 32769).astype(np.float32))
    assert len(encode_record(exact)) < len(encode_record(fine)) * 0.6
    np.testing.assert_array_equal(decode_record(encode_record(exact)).samples, exact.samples)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_bytes_that_are_no_record_are_refused(data):
    with pytest.raises(ValueError):  # noqa: PT011
        decode_record(data)


def test_a_cut_anywhere_gives_the_whole_records_before_it(tmp_path: Path):
    path = tmp_path / "00000001.log"
    ends = write(path, 12)
    data = path.read_bytes()
    whole = [encode_record(r) for r in JournalReader(path)]
    for cut in range(ends[0], len(data) + 1, 13):
        path.write_bytes(data[:cut])
        reader = JournalReader(path)
        got = [encode_record(r) for r in reader]
        expected = sum(end <= cut for end in ends[1:])
        assert got == whole[:expected]
        assert reader.records == expected
        assert bool(reader.damage) == (cut not in ends)


def test_a_flipped_bit_anywhere_is_seen(tmp_path: Path):
    path = tmp_path / "00000001.log"
    ends = write(path, 12)
    data = path.read_bytes()
    whole = [encode_record(r) for r in JournalReader(path)]
    for at in range(0, len(data), 37):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        if at < ends[0]:
            with pytest.raises(ValueError, match="header"):
                JournalReader(path)
            continue
        reader = JournalReader(path)
        expected = sum(end <= at for end in ends[1:])
        assert [encode_record(r) for r in reader] == whole[:expected]
        assert reader.damage


def test_a_missing_or_doubled_record_is_seen(tmp_path: Path):
    path = tmp_path / "00000001.log"
    ends = write(path, 4)
    data = path.read_bytes()
    path.write_bytes(data[: ends[1]] + data[ends[2] :])
    reader = JournalReader(path)
    assert len(list(reader)) == 1
    assert "record 2 fails its checksum" in reader.damage
    path.write_bytes(data[: ends[2]] + data[ends[1] :])
    assert len(list(JournalReader(path))) == 2


def test_a_full_disk_leaves_whole_records_and_is_told(tmp_path: Path):
    files = FaultyFiles(tmp_path, full_at=5)
    writer = JournalWriter(files, tmp_path / "00000001.log", {}, sync_period_s=0.0)
    taken = [writer.append(observation(n)) for n in range(6)]
    assert taken == [True, True, False, False, False, False]
    assert "No space left" in writer.failed
    writer.close()
    reader = JournalReader(tmp_path / "00000001.log")
    assert len(list(reader)) == 2
    assert reader.damage == ""


def test_the_thread_syncs(tmp_path: Path):
    import threading

    synced = threading.Event()

    class Watched(FileLayer):
        def sync(self, path: Path) -> None:
            super().sync(path)
            synced.set()

    writer = JournalWriter(Watched(), tmp_path / "00000001.log", {}, sync_period_s=0.01)
    assert synced.wait(60)
    synced.clear()
    writer.append(observation(0))
    assert synced.wait(60)
    writer.close()
