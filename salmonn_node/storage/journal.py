"""The journal: observations since the last snapshot as checksummed records. A crash can only cut off the end."""

from __future__ import annotations

import contextlib
import json
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from salmonn_node.storage.files import FileLayer
from salmonn_node.stream.observations import AudioSpan, Frame, Pose

MAGIC = b"SALMJNL1"
MAX_RECORD_BYTES = 1 << 28
SYNC_PERIOD_S = 0.5
_PREFIX = struct.Struct("<II")  # length of the body, running CRC-32 up to and with the body
_META = struct.Struct("<I")  # length of the JSON part of the body
_POSE_KEYS = ("stamp_ns", "frame_id", "position", "orientation", "covariance", "map_id", "child_frame_id")


@dataclass(frozen=True)
class Mark:
    """An event of the stream that is not an observation, such as the start of a session.

    Attributes:
        name: what happened.
        data: JSON values.
    """

    name: str
    data: dict[str, Any] = field(default_factory=dict)


Record = Frame | AudioSpan | Pose | Mark


def _from_short(samples: np.ndarray) -> np.ndarray:
    return (samples.astype(np.float32) / np.float32(32768)).astype(np.float32)


def encode_record(record: Record, compress: bool = True) -> bytes:
    """Encode the body of one record: JSON, then pixels (PNG or raw) or samples (16 bit when that is exact)."""
    blob = b""
    meta: dict[str, Any]
    if isinstance(record, Frame):
        image = np.ascontiguousarray(record.image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"image must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
        codec = "raw"
        if compress:
            # RGB or BGR does not matter here: encode and decode use the same order.
            done, png = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
            if done and png.nbytes < image.nbytes:
                codec, blob = "png", bytes(png.tobytes())
        if codec == "raw":
            blob = image.tobytes()
        meta = {"kind": "frame", "stamp_ns": int(record.stamp_ns), "source": record.source,
                "frame_id": record.frame_id, "shape": list(image.shape), "codec": codec}  # fmt: skip
    elif isinstance(record, AudioSpan):
        samples = np.ascontiguousarray(record.samples, dtype="<f4")
        scaled = np.rint(np.clip(np.nan_to_num(samples), -1.0, 1.0) * np.float32(32768))
        short = np.clip(scaled, -32768, 32767).astype("<i2")
        exact = np.array_equal(_from_short(short).view("<u4"), samples.view("<u4"))
        blob = short.tobytes() if exact else samples.tobytes()
        meta = {"kind": "audio", "start_ns": int(record.start_ns), "source": record.source,
                "frame_id": record.frame_id, "codec": "s16" if exact else "f32"}  # fmt: skip
    elif isinstance(record, Pose):
        meta = {"kind": "pose", **dict(zip(_POSE_KEYS, record.to_state(), strict=True))}
    else:
        meta = {"kind": "mark", "name": record.name, "data": record.data}
    text = json.dumps(meta).encode()
    return _META.pack(len(text)) + text + blob


def decode_record(body: bytes) -> Record:
    """Decode the body of a record; gives the record of `encode_record` bit for bit.

    Raises:
        ValueError: the body is malformed.
    """
    try:
        (size,) = _META.unpack_from(body)
        meta = json.loads(body[_META.size : _META.size + size])
        blob = body[_META.size + size :]
        kind = meta["kind"]
        if kind == "frame":
            shape = tuple(int(n) for n in meta["shape"])
            if meta["codec"] == "png":
                image = cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_COLOR)
                if image is None or image.shape != shape:
                    raise ValueError("picture cannot be decoded")
                pixels = np.asarray(image, np.uint8)
            else:
                pixels = np.frombuffer(blob, np.uint8).reshape(shape).copy()
            return Frame(meta["stamp_ns"], meta["source"], pixels, meta["frame_id"])
        if kind == "audio":
            if meta["codec"] == "s16":
                samples = _from_short(np.frombuffer(blob, "<i2"))
            else:
                samples = np.frombuffer(blob, "<f4").astype(np.float32)
            return AudioSpan(meta["start_ns"], meta["source"], samples, meta["frame_id"])
        if kind == "pose":
            return Pose.from_state([meta[key] for key in _POSE_KEYS])
        if kind == "mark":
            return Mark(meta["name"], meta["data"])
    except (KeyError, TypeError, RecursionError, struct.error, cv2.error) as error:
        raise ValueError(f"journal record cannot be read: {error}") from error
    raise ValueError(f"journal record has unknown kind {kind!r}")


class JournalWriter:
    """Appends records to one new segment.

    When `append` returns, the record is in the page cache, so the death of the process loses no record. A thread calls
    `sync` every `sync_period_s`; a power cut loses the records after the last `sync`. After a failed write the segment
    is cut back to its last whole record and takes no more records, because a journal with a gap cannot be replayed.

    Args:
        files: file operations.
        path: the new segment.
        header: JSON values that say which segment this one continues.
        sync_period_s: the longest time until a record is on disk; 0 leaves syncing to the caller.
        compress: whether to store pictures as PNG.

    Attributes:
        records, bytes: how much was written.
        failed: why the segment takes no more records; "" while it does.
        max_append_s: duration of the slowest `append`.
    """

    def __init__(
        self,
        files: FileLayer,
        path: Path,
        header: dict[str, Any],
        *,
        sync_period_s: float = SYNC_PERIOD_S,
        compress: bool = True,
    ) -> None:
        self.path, self.header, self.compress = path, header, compress
        self.records = 0
        self.failed = ""
        self.max_append_s = 0.0
        self._files = files
        self._lock = threading.Lock()
        self._dirty = True
        self._named = False
        self._closed = threading.Event()
        self._file = files.open_append(path)
        text = json.dumps(header).encode()
        start = MAGIC + _PREFIX.pack(len(text), zlib.crc32(text)) + text
        try:
            files.append(self._file, start)
        except BaseException:
            self._file.close()
            raise
        self.bytes = len(start)
        self._crc = zlib.crc32(text)
        self._thread: threading.Thread | None = None
        if sync_period_s > 0:
            self._thread = threading.Thread(target=self._sync_often, args=(sync_period_s,), daemon=True)
            self._thread.name = "journal-sync"
            self._thread.start()

    def append(self, record: Record) -> bool:
        """Write one record. Returns False when the write failed (see `failed`); never raises OSError."""
        started = time.perf_counter()
        body = encode_record(record, self.compress)
        if len(body) > MAX_RECORD_BYTES:
            raise ValueError(f"record of {len(body)} bytes exceeds {MAX_RECORD_BYTES}")
        with self._lock:
            if self.failed or self._file.closed:
                return False
            crc = zlib.crc32(body, self._crc)
            data = _PREFIX.pack(len(body), crc) + body
            try:
                self._files.append(self._file, data)
            except OSError as error:
                self._fail(error)
                return False
            self._crc = crc
            self.records += 1
            self.bytes += len(data)
            self._dirty = True
        self.max_append_s = max(self.max_append_s, time.perf_counter() - started)
        return True

    def _fail(self, error: OSError) -> None:
        self.failed = f"{self.path.name}: {error.strerror or error}"
        with contextlib.suppress(OSError):  # a reader stops at the torn record by its checksum
            self._files.truncate(self._file, self.bytes)

    def sync(self) -> None:
        """Flush the appended records to the disk. A failure is kept in `failed`."""
        with self._lock:
            if not self._dirty or self._file.closed:
                return
            self._dirty = False
        try:
            self._files.sync(self.path)
            if not self._named:
                self._files.sync_directory(self.path.parent)
                self._named = True
        except OSError as error:
            self.failed = self.failed or f"{self.path.name}: {error.strerror or error}"

    def _sync_often(self, period_s: float) -> None:
        while not self._closed.wait(period_s):
            self.sync()

    def close(self) -> None:
        """Sync and close."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        self.sync()
        with self._lock:
            self._file.close()


class EmptySegmentError(ValueError):
    """The segment ends within its header: its writer died at the start, and the segment holds no record."""


class JournalReader:
    """Reads one segment up to its first damaged record.

    Iterate over it to get the records. Afterwards `records` and `bytes` count what was read, and `damage` says what
    ended the reading ("" for a clean end). The reader writes nothing.

    Raises:
        EmptySegmentError: the file ends within the header.
        ValueError: the header is damaged or has another format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = 0
        self.damage = ""
        with open(path, "rb") as file:
            start = file.read(len(MAGIC) + _PREFIX.size)
            if len(start) < len(MAGIC) + _PREFIX.size:
                raise EmptySegmentError(f"journal segment {path.name} ends within its header")
            if start[: len(MAGIC)] != MAGIC:
                raise ValueError(f"journal segment {path.name} has no salmonn_node header")
            size, self._crc = _PREFIX.unpack(start[len(MAGIC) :])
            text = file.read(size) if size <= 1 << 20 else b""
            if len(text) < size <= 1 << 20:
                raise EmptySegmentError(f"journal segment {path.name} ends within its header")
            if len(text) != size or zlib.crc32(text) != self._crc:
                raise ValueError(f"journal segment {path.name} has a damaged header")
            self.header: dict[str, Any] = json.loads(text)
            self._start = self.bytes = file.tell()

    def __iter__(self) -> Iterator[Record]:
        self.records, self.bytes, self.damage, crc = 0, self._start, "", self._crc
        with open(self.path, "rb") as file:
            file.seek(self._start)
            while prefix := file.read(_PREFIX.size):
                at = f"{self.path.name}: record {self.records + 1}"
                if len(prefix) < _PREFIX.size:
                    self.damage = f"{at} is cut short"
                    return
                size, expected = _PREFIX.unpack(prefix)
                body = file.read(size) if 0 < size <= MAX_RECORD_BYTES else b""
                if not 0 < size <= MAX_RECORD_BYTES or len(body) < size:
                    self.damage = f"{at} is cut short"
                    return
                crc = zlib.crc32(body, crc)
                if crc != expected:
                    self.damage = f"{at} fails its checksum"
                    return
                try:
                    record = decode_record(body)
                except ValueError as error:
                    self.damage = f"{at}: {error}"
                    return
                self.records += 1
                self.bytes += _PREFIX.size + size
                yield record
