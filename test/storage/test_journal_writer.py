"""What the journal's writer and reader tell: counts, when they sync, why they stopped, and what they refuse."""

from __future__ import annotations

import errno
import struct
import threading
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from storage.ledger import observation

from salmonn_node.storage import journal
from salmonn_node.storage.files import FileLayer
from salmonn_node.storage.journal import (
    MAGIC,
    EmptySegmentError,
    JournalReader,
    JournalWriter,
    Mark,
    decode_record,
    encode_record,
)
from salmonn_node.stream.observations import AudioSpan, Frame

NAME = "00000001.log"


class Counted(FileLayer):
    """Counts what was flushed; flushes of the names in `failing` fail."""

    def __init__(self, failing: tuple[str, ...] = ()) -> None:
        self.synced: list[str] = []
        self.failing = failing

    def sync(self, path: Path) -> None:
        self.synced.append(path.name)
        if path.name in self.failing:
            raise OSError(errno.EIO, "Input/output error", str(path))
        super().sync(path)


def writer_of(folder: Path, files: FileLayer | None = None, **settings: object) -> JournalWriter:
    settings = {"sync_period_s": 0.0, **settings}
    return JournalWriter(files or FileLayer(), folder / NAME, {"continues": [3, 4]}, **settings)  # type: ignore[arg-type]


def test_what_was_written_is_counted_as_it_lies_on_the_disk(tmp_path: Path) -> None:
    writer = writer_of(tmp_path)
    assert (writer.records, writer.failed, writer.max_append_s) == (0, "", 0.0)
    assert writer.bytes == writer.path.stat().st_size
    slowest = 0.0
    for n in range(5):
        assert writer.append(observation(n))
        assert (writer.records, writer.bytes) == (n + 1, writer.path.stat().st_size)
        assert writer.max_append_s >= slowest
        slowest = writer.max_append_s
    assert 0.0 < slowest < 60.0
    writer.close()
    assert not writer.append(observation(5)), "closed"
    assert (writer.records, writer.failed) == (5, "")
    reader = JournalReader(writer.path)
    assert reader.header == {"continues": [3, 4]}
    assert (reader.records, reader.damage) == (0, "")
    for _ in range(2):  # a reader may be read again
        assert [encode_record(r) for r in reader] == [encode_record(observation(n)) for n in range(5)]
        assert (reader.records, reader.bytes, reader.damage) == (5, writer.bytes, "")


def test_only_what_is_new_is_flushed_and_the_name_once(tmp_path: Path) -> None:
    files = Counted()
    writer = writer_of(tmp_path, files)
    assert files.synced == []
    writer.sync()
    assert files.synced == [NAME, tmp_path.name]
    writer.sync()
    assert len(files.synced) == 2, "nothing is new"
    writer.append(observation(0))
    writer.append(observation(1))
    writer.sync()
    assert files.synced[2:] == [NAME]
    writer.append(observation(2))
    writer.close()
    assert files.synced[3:] == [NAME]
    writer.sync()
    writer.close()
    assert len(files.synced) == 4, "it is closed"


def test_a_disk_that_fails_to_flush_is_told_and_ends_the_segment(tmp_path: Path) -> None:
    files = Counted((NAME,))
    writer = writer_of(tmp_path, files)
    assert writer.append(observation(0))
    writer.sync()
    assert writer.failed == f"{NAME}: Input/output error"
    assert not writer.append(observation(1))
    files.failing = (tmp_path.name,)
    writer.close()
    assert (writer.failed, writer.records) == (f"{NAME}: Input/output error", 1)


def test_a_failing_write_says_why_and_leaves_whole_records(tmp_path: Path) -> None:
    class Full(FileLayer):
        """Writes half of a record, and cannot cut it off when `torn`."""

        left, torn, reason = 4, False, "No space left on device"

        def append(self, file: BinaryIO, data: bytes) -> None:
            self.left -= 1
            super().append(file, data if self.left > 0 else data[: len(data) // 2])
            if self.left <= 0:
                raise OSError(errno.ENOSPC, self.reason) if self.reason else OSError("torn off")

        def truncate(self, file: BinaryIO, size: int) -> None:
            if self.torn:
                raise OSError(errno.EIO, "Input/output error")
            super().truncate(file, size)

    for torn, reason, told in (
        (False, "No space left on device", "No space left on device"),
        (True, "No space left on device", "No space left on device"),
        (False, "", "torn off"),
    ):
        files = Full()
        files.torn, files.reason = torn, reason
        folder = tmp_path / f"{torn}{reason}"
        folder.mkdir()
        writer = writer_of(folder, files)
        assert [writer.append(observation(n)) for n in range(4)] == [True, True, False, False]
        assert writer.failed == f"{NAME}: {told}"
        assert (writer.path.stat().st_size == writer.bytes) == (not torn)
        writer.close()
        reader = JournalReader(writer.path)
        assert len(list(reader)) == writer.records == 2
        assert reader.damage == (f"{NAME}: record 3 is cut short" if torn else "")


def test_a_segment_whose_header_cannot_be_written_is_closed(tmp_path: Path) -> None:
    opened: list[BinaryIO] = []

    class Full(FileLayer):
        def append(self, file: BinaryIO, data: bytes) -> None:
            opened.append(file)
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        writer_of(tmp_path, Full())
    assert opened[0].closed
    with pytest.raises(FileExistsError):
        writer_of(tmp_path)


def test_a_thread_flushes_only_where_a_period_is_given(tmp_path: Path) -> None:
    def flushers() -> list[threading.Thread]:
        return [t for t in threading.enumerate() if t.name == "journal-sync"]

    before = flushers()
    for number, (period_s, more) in enumerate(((0.0, 0), (100.0, 1), (None, 1))):
        folder = tmp_path / str(number)
        folder.mkdir()
        period = {} if period_s is None else {"sync_period_s": period_s}
        writer = JournalWriter(FileLayer(), folder / NAME, {}, **period)
        assert len(flushers()) == len(before) + more
        assert all(t.daemon for t in flushers()), "it must not hold up the end of the process"
        writer.close()
        assert flushers() == before


def test_a_record_that_is_too_long_is_refused_and_harms_nothing(tmp_path: Path, monkeypatch) -> None:
    writer = writer_of(tmp_path)
    mark = Mark("x", {"text": "y" * 100})
    size = len(encode_record(mark))
    monkeypatch.setattr(journal, "MAX_RECORD_BYTES", size)
    assert writer.append(mark)
    monkeypatch.setattr(journal, "MAX_RECORD_BYTES", size - 1)
    with pytest.raises(ValueError, match=f"record of {size} bytes exceeds {size - 1}"):
        writer.append(mark)
    assert (writer.records, writer.failed) == (1, "")
    writer.close()
    reader = JournalReader(writer.path)
    assert list(reader) == []
    assert reader.damage == f"{NAME}: record 1 is cut short", "a length beyond the bound is not believed"
    monkeypatch.setattr(journal, "MAX_RECORD_BYTES", size)
    assert list(reader) == [mark]


def test_a_header_that_ends_early_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / NAME
    writer_of(tmp_path).close()
    data = path.read_bytes()
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        with pytest.raises(EmptySegmentError, match=f"^journal segment {NAME} ends within its header$"):
            JournalReader(path)
    for wrong, named in (
        (b"X" + data[1:], "has no salmonn_node header"),
        (data[:-1] + b"X", "has a damaged header"),
        (data[: len(MAGIC)] + struct.pack("<II", (1 << 20) + 1, 0) + data[len(MAGIC) + 8 :], "has a damaged header"),
    ):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=f"^journal segment {NAME} {named}$") as refused:
            JournalReader(path)
        assert refused.type is ValueError
    text = b'{"a": "' + b"x" * ((1 << 20) - 9) + b'"}'
    assert len(text) == 1 << 20
    path.write_bytes(MAGIC + struct.pack("<II", len(text), zlib.crc32(text)) + text)
    assert len(JournalReader(path).header["a"]) == (1 << 20) - 9


def test_pictures_are_compressed_where_that_saves_bytes(tmp_path: Path) -> None:
    flat = Frame(5, "front", np.full((40, 60, 3), (7, 80, 200), np.uint8), "optical")
    noise = Frame(5, "front", np.random.default_rng(0).integers(0, 255, (2, 2, 3), np.uint8), "optical")
    assert len(encode_record(flat)) == len(encode_record(flat, True)) < 500
    assert len(encode_record(flat, compress=False)) > flat.image.nbytes
    assert b'"raw"' in encode_record(noise), "a tiny picture is longer as PNG"
    for frame in (flat, noise):
        for compress in (True, False):
            back = decode_record(encode_record(frame, compress))
            assert back.image.dtype == np.uint8
            assert np.array_equal(back.image, frame.image)
            back.image[0, 0, 0] += 1  # a picture that may be drawn on
    for compress in (True, False):
        (tmp_path / f"{compress}").mkdir()
        writer = writer_of(tmp_path / f"{compress}", compress=compress)
        writer.append(flat)
        assert (writer.bytes < flat.image.nbytes) == compress
        writer.close()
    for wrong in (flat.image[:, :, :2], flat.image[:, :, 0], flat.image.astype(np.float32)):
        with pytest.raises(ValueError, match=r"image must be \(H, W, 3\) uint8, got \(40, 60"):
            encode_record(Frame(5, "front", wrong, "optical"))


def test_sound_beyond_sixteen_bits_comes_back_as_it_was() -> None:
    for values in ([1.0, -1.0], [2.0, 0.5], [float("nan"), 0.0], [-0.0, 0.0], [float("inf"), 1.0], [-1.0, 0.25]):
        span = AudioSpan(9, "mic", np.array(values, np.float32), "ear")
        back = decode_record(encode_record(span))
        assert back.samples.tobytes() == span.samples.tobytes()
        assert (back.start_ns, back.source, back.frame_id) == (9, "mic", "ear")


def body(text: bytes, blob: bytes = b"") -> bytes:
    return struct.pack("<I", len(text)) + text + blob


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "journal record cannot be read: unpack_from requires"),
        (body(b'{"kind": "smell"}'), "journal record has unknown kind 'smell'"),
        (body(b"{}"), "journal record cannot be read: 'kind'"),
        (body(b'{"kind": "mark", "name": "x"}'), "journal record cannot be read: 'data'"),
        (body(b'{"kind": "frame", "shape": [2, 2, 3], "codec": "png"}', b"no picture"), "picture cannot be decoded"),
        (body(b'{"kind": "frame", "shape": [2, 2, 3], "codec": "raw"}', b"short"), "cannot reshape"),
    ],
)
def test_what_cannot_be_read_is_named(data: bytes, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        decode_record(data)


def test_a_picture_of_another_size_than_told_is_refused() -> None:
    told = encode_record(Frame(5, "front", np.full((40, 60, 3), 7, np.uint8), "optical"))
    with pytest.raises(ValueError, match="picture cannot be decoded"):
        decode_record(told.replace(b"[40, 60, 3]", b"[40, 61, 3]"))
