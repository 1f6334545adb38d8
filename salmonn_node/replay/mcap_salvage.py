"""What is left of a truncated MCAP file: its whole records, closed again so that a reader accepts them.

A recorder that loses power leaves a file without footer and often with half a chunk at its end. Every record starts
with its opcode (1 byte) and length (8 bytes, little endian), so the whole ones can be told apart and kept; a data-end
record, a footer without summary and the closing magic make the copy a valid, index-less file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

COPY_BYTES = 1 << 20
MAGIC = b"\x89MCAP0\r\n"
_DATA_END, _FOOTER = 0x0F, 0x02
# Records of the summary section refer to offsets of the original file, so they are not carried over.
_SUMMARY_OPCODES = {0x08, 0x0B, 0x0D, 0x0E, _DATA_END, _FOOTER}


@dataclass(frozen=True)
class Salvage:
    """What a salvage kept.

    Attributes:
        path: the closed copy.
        kept_bytes: bytes of whole records that were copied.
        lost_bytes: bytes at the file's end that belong to no whole record.
    """

    path: Path
    kept_bytes: int
    lost_bytes: int


def needs_salvage(path: Path) -> bool:
    """Whether an MCAP file lacks its closing magic (a writer that died); raises ValueError if it is no MCAP at all."""
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError(f"{path} is not an MCAP file: it does not start with the MCAP magic")
        file.seek(0, 2)
        if file.tell() < 2 * len(MAGIC):
            return True
        file.seek(-len(MAGIC), 2)
        return file.read() != MAGIC


def salvage(path: Path, target: Path) -> Salvage:
    """Copy the whole records of `path` to `target` and close it as a valid, index-less MCAP file.

    Raises:
        ValueError: `path` is not an MCAP file.
    """
    needs_salvage(path)
    size = path.stat().st_size
    kept = len(MAGIC)
    with path.open("rb") as source, target.open("wb") as copy:
        source.seek(kept)
        copy.write(MAGIC)
        while size - kept >= 9:
            opcode, length = struct.unpack("<BQ", source.read(9))
            if opcode == 0 or opcode in _SUMMARY_OPCODES or length > size - kept - 9:
                break
            source.seek(-9, 1)
            _copy(source, copy, 9 + length)
            kept += 9 + length
        copy.write(struct.pack("<BQI", _DATA_END, 4, 0))
        copy.write(struct.pack("<BQQQI", _FOOTER, 20, 0, 0, 0))
        copy.write(MAGIC)
    return Salvage(target, kept, size - kept)


def _copy(source, copy, length: int) -> None:
    """Copy exactly `length` bytes in pieces, because a chunk may be larger than the memory that is free."""
    remaining = length
    while remaining:
        piece = source.read(min(remaining, COPY_BYTES))
        copy.write(piece)
        remaining -= len(piece)
