"""An MCAP file, whole or damaged: every message that can still be told apart, in order of time, and what is lost.

The file is read in place. A finished one has a summary, which says where its chunks lie. Where the recorder died there
is none: then the records are walked from the start, each with its opcode (1 byte) and length (8 bytes), up to the first
that is not whole; of a chunk that was cut off, the messages that lie before the cut are taken.
"""

from __future__ import annotations

import io
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.reader import SeekingReader
from mcap.records import Channel as ChannelRecord
from mcap.records import Schema

from salmonn_node.replay.mcap_records import FOOTER, HEAD, MAX_CHUNK_BYTES, MESSAGE, chunk_records, records
from salmonn_node.replay.storage_file import (
    Channel,
    Record,
    StorageError,
    in_time_order,
    is_latched,
    normal_type,
    unpacked,
)

MAGIC = b"\x89MCAP0\r\n"
JITTER_NS = 50_000_000
RUN_BYTES = 1 << 20  # messages outside chunks are read in stretches of about this size
CHUNK = bytes([Opcode.CHUNK])
FOOTER_BYTES = HEAD.size + FOOTER.size + len(MAGIC)
_KINDS = {"ros2msg": "msg", "ros1msg": "msg", "ros2idl": "idl", "omgidl": "idl"}


@dataclass
class _Span:
    """A stretch of the file that is read at once: a chunk, or messages that lie in none.

    Attributes:
        start_ns, end_ns: log times of its first and last message.
        at, length: where it lies in the file, in bytes; a chunk with its head.
        chunk: whether it is a chunk.
        cut: whether the file ends inside of it.
        channels: what it holds messages of; None when that is not known.
    """

    start_ns: int
    end_ns: int
    at: int
    length: int
    chunk: bool = True
    cut: bool = False
    channels: frozenset[int] | None = None


class McapFile:
    """An open MCAP file; see `storage_file.StorageFile`.

    Raises:
        StorageError: it is no MCAP file, or empty.
    """

    def __init__(self, path: Path) -> None:
        self.notes: list[str] = []
        self._schemas: dict[int, Schema] = {}
        self._channels: dict[int, ChannelRecord] = {}
        self._spans: list[_Span] = []
        self._file = path.open("rb")
        try:
            self._size = self._file.seek(0, io.SEEK_END)
            if self._size == 0:
                raise StorageError("the file is empty")
            if self._read(0, len(MAGIC)) != MAGIC:
                raise StorageError("not an MCAP file: it does not start with the MCAP magic")
            counts, finished = self._index()
        except BaseException:
            self._file.close()
            raise
        timed = [span for span in self._spans if span.end_ns]
        self.start_ns = min((span.start_ns for span in timed), default=0)
        self.end_ns = max((span.end_ns for span in timed), default=0)
        self.channels = [self._channel(record, counts[number], finished) for number, record in self._channels.items()]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def messages(self, channels: Collection[int], start_ns: int, stop_ns: int) -> Iterator[Record]:
        """Messages of the given channels with `start_ns` <= log time < `stop_ns`, in order of log time."""
        wanted: dict[int, int] = dict.fromkeys(channels, 0)
        return in_time_order(
            (span.start_ns, partial(self._span_messages, span, wanted, start_ns, stop_ns))
            for span in self._spans
            if span.end_ns >= start_ns
            and span.start_ns < stop_ns
            and (span.channels is None or not span.channels.isdisjoint(wanted))
        )

    # -- what the file holds --------------------------------------------------------------------------------------

    def _index(self) -> tuple[Counter[int], bool]:
        """Find channels and spans; returns messages by channel, and whether the recorder finished the file."""
        summary = self._summary()
        if summary is None or summary.statistics is None:
            return self._scan()
        if summary.statistics.message_count and not (summary.chunk_indexes and summary.channels):
            return self._scan()
        self._schemas, self._channels = summary.schemas, summary.channels
        for chunk in summary.chunk_indexes:
            held = frozenset(chunk.message_index_offsets) or None
            place = (chunk.message_start_time, chunk.message_end_time, chunk.chunk_start_offset, chunk.chunk_length)
            self._spans.append(_Span(*place, channels=held))
        return Counter(summary.statistics.channel_message_counts), True

    def _summary(self) -> Any:
        """The summary section, None when the file has none that can be trusted: then its records are walked."""
        tail = self._read(self._size - FOOTER_BYTES, FOOTER_BYTES)
        if len(tail) < FOOTER_BYTES or tail[-len(MAGIC) :] != MAGIC:
            return None
        start, _, checksum = FOOTER.unpack_from(tail, HEAD.size)
        if not len(MAGIC) <= start <= self._size - FOOTER_BYTES:
            return None
        if checksum and zlib.crc32(self._read(start, self._size - len(MAGIC) - 4 - start)) != checksum:
            return None
        try:
            self._file.seek(0)
            summary = SeekingReader(self._file, record_size_limit=MAX_CHUNK_BYTES).get_summary()
        except Exception:
            return None  # the library raises whatever its parser runs into
        chunks = summary.chunk_indexes if summary else []
        inside = all(0 < c.chunk_start_offset <= start - c.chunk_length for c in chunks)
        return summary if inside and all(self._read(c.chunk_start_offset, 1) == CHUNK for c in chunks) else None

    def _scan(self) -> tuple[Counter[int], bool]:
        """Walk the records from the start."""
        counts: Counter[int] = Counter()
        run: _Span | None = None
        at, finished, rescued = len(MAGIC), False, 0
        while self._size - at >= HEAD.size:
            opcode, length = HEAD.unpack(self._read(at, HEAD.size))
            if opcode in (Opcode.DATA_END, Opcode.FOOTER):
                finished = True
                break
            if opcode == 0:
                break
            body, whole = at + HEAD.size, length <= self._size - at - HEAD.size
            if opcode == Opcode.CHUNK:
                span, before = _Span(0, 0, at, min(HEAD.size + length, self._size - at), cut=not whole), counts.total()
                self._learn_chunk(span, counts)
                rescued = 0 if whole else counts.total() - before
            elif not whole:
                break
            elif opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                self._learn(opcode, self._read(body, length))
            elif opcode == Opcode.MESSAGE and length >= MESSAGE.size:
                channel, _, log_ns, _ = MESSAGE.unpack(self._read(body, MESSAGE.size))
                if run is None or at - run.at > RUN_BYTES:
                    run = _Span(log_ns, log_ns, at, 0, chunk=False)
                    self._spans.append(run)
                run.start_ns, run.end_ns = min(run.start_ns, log_ns), max(run.end_ns, log_ns)
                run.length = body + length - run.at
                counts[channel] += 1
            if not whole:
                break
            at = body + length
        damaged = bool(self.notes)
        if finished and self._read(self._size - len(MAGIC), len(MAGIC)) != MAGIC:
            self._note("its end is cut off: the index, no messages")
        if not finished:
            left = self._size - at
            told = f"{left} bytes at its end are part of a record, {rescued} messages in them are whole" if left else ""
            self._note(f"its recorder did not finish it: {told or 'it has no index, its records are whole'}")
        return counts, finished and not damaged

    def _learn_chunk(self, span: _Span, counts: Counter[int]) -> None:
        """Channels, times and counts of a chunk that no summary tells of."""
        try:
            data = self._unpack(span)
        except ValueError as error:
            self._note(f"a chunk at byte {span.at} is damaged, its messages are lost: {error}")
            return
        seen: set[int] = set()
        for opcode, begin, end in records(data):
            if opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                self._learn(opcode, data[begin:end])
            elif opcode == Opcode.MESSAGE:
                channel, _, log_ns, _ = MESSAGE.unpack_from(data, begin)
                span.start_ns = min(span.start_ns, log_ns) if seen else log_ns
                span.end_ns = max(span.end_ns, log_ns)
                seen.add(channel)
                counts[channel] += 1
        if seen:
            span.channels = frozenset(seen)
            self._spans.append(span)

    def _learn(self, opcode: int, body: bytes) -> None:
        stream = ReadDataStream(io.BytesIO(body))
        try:
            if opcode == Opcode.SCHEMA:
                schema = Schema.read(stream)
                self._schemas[schema.id] = schema
            else:
                channel = ChannelRecord.read(stream)
                self._channels[channel.id] = channel
        except Exception as error:  # as above
            self._note(f"a record of its channels cannot be read: {type(error).__name__}: {error}")

    def _channel(self, record: ChannelRecord, count: int, finished: bool) -> Channel:
        schema = self._schemas.get(record.schema_id)
        name, coding = (schema.name, schema.encoding) if schema else ("", "")
        encoding = record.message_encoding or {"ros2msg": "cdr", "ros1msg": "ros1"}.get(coding, "unknown")
        return Channel(
            record.id,
            record.topic,
            normal_type(name) if coding in _KINDS or encoding in ("cdr", "ros1") else name,
            encoding,
            schema.data.decode("utf-8", "replace") if schema and coding in _KINDS else "",
            _KINDS.get(coding, ""),
            count if finished else None,
            count,
            is_latched(record.metadata.get("offered_qos_profiles", "")) or record.metadata.get("latching") == "1",
        )

    # -- messages -------------------------------------------------------------------------------------------------

    def _span_messages(self, span: _Span, newest: dict[int, int], start_ns: int, stop_ns: int) -> Iterator[Record]:
        """Messages of a span; `newest` has the wanted channels, each with the time of its last message so far."""
        try:
            data = self._unpack(span)
        except ValueError as error:
            self._note(f"a chunk at byte {span.at} is damaged, its messages are lost: {error}")
            return
        found = []
        for opcode, begin, end in records(data):
            if opcode == Opcode.MESSAGE:
                channel, _, log_ns, _ = MESSAGE.unpack_from(data, begin)
                if channel in newest and start_ns <= log_ns < stop_ns:
                    # A receive stamp that steps back a little must not turn a topic's own messages round.
                    if 0 < newest[channel] - log_ns <= JITTER_NS:
                        log_ns = newest[channel]
                    newest[channel] = log_ns
                    found.append((log_ns, channel, begin + MESSAGE.size, end))
        found.sort(key=lambda item: item[0])
        for log_ns, channel, begin, end in found:
            try:
                yield log_ns, channel, unpacked(bytes(data[begin:end]))
            except ValueError:
                yield log_ns, channel, b""  # whoever decodes it counts it

    def _unpack(self, span: _Span) -> bytes:
        """The records of a span; raises ValueError when they cannot be trusted."""
        raw = self._read(span.at, span.length)
        return chunk_records(raw, cut=span.cut) if span.chunk else raw

    def _note(self, text: str) -> None:
        if text not in self.notes:  # a file is read more than once
            self.notes.append(text)

    def _read(self, at: int, length: int) -> bytes:
        self._file.seek(max(0, at))
        return self._file.read(length)
