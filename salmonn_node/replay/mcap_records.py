"""The records of MCAP as bytes: telling them apart, and what a chunk of them holds when it is decompressed."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import lz4.frame

from salmonn_node.replay.storage_file import decompressed

MAX_CHUNK_BYTES = 1 << 30
MESSAGE_OPCODE = 0x05
HEAD = struct.Struct("<BQ")  # opcode, length
MESSAGE = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
FOOTER = struct.Struct("<QQI")  # where the summary starts, where its offsets do, CRC-32 of both or 0
_CHUNK = struct.Struct("<QQQI")  # start, end, bytes when decompressed, CRC-32 of those or 0


def records(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Opcode, begin and end of the body of each whole record."""
    at = 0
    while at + HEAD.size <= len(data):
        opcode, length = HEAD.unpack_from(data, at)
        at += HEAD.size
        if length > len(data) - at or (opcode == MESSAGE_OPCODE and length < MESSAGE.size):
            return
        yield opcode, at, at + length
        at += length


def chunk_records(raw: bytes, *, cut: bool = False) -> bytes:
    """The records in a chunk, decompressed.

    Args:
        raw: the chunk with its head.
        cut: the end is missing: what comes before it is given, unchecked.

    Raises:
        ValueError: damaged, of an unknown compression, or larger than MAX_CHUNK_BYTES.
    """
    at = HEAD.size + _CHUNK.size
    if len(raw) < at + 4:
        raise ValueError("its head is cut off")
    _, _, size, checksum = _CHUNK.unpack_from(raw, HEAD.size)
    (name_length,) = struct.unpack_from("<I", raw, at)
    name = raw[at + 4 : at + 4 + name_length].decode("utf-8", "replace")
    body = raw[at + 4 + name_length + 8 :]
    if size > MAX_CHUNK_BYTES:
        raise ValueError(f"it announces {size} bytes, at most {MAX_CHUNK_BYTES} are read")
    if name == "":
        data = body
    elif name == "zstd":
        data = decompressed(body, size)
    elif name == "lz4":
        data = _lz4(body, size)
    else:
        raise ValueError(f"its compression is {name[:20]!r}, expected zstd or lz4")
    if not cut and len(data) != size:
        raise ValueError(f"it holds {len(data)} bytes and announces {size}")
    if not cut and checksum and zlib.crc32(data) != checksum:
        raise ValueError("its checksum is wrong")
    return data


def _lz4(data: bytes, limit: int) -> bytes:
    try:
        return lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=limit)
    except RuntimeError as error:
        raise ValueError(f"lz4: {error}") from None
