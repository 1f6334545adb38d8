"""What every kind of storage file offers: channels, messages in order of time, and what of the file cannot be read."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import yaml
import zstandard

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # no CDR message starts with these bytes
MAX_MESSAGE_BYTES = 1 << 30

Record = tuple[int, int, bytes]  # log time (ns), id of the channel, bytes of the message
T = TypeVar("T", bound=tuple[Any, ...])


class StorageError(ValueError):
    """A storage file of which nothing can be read; the message says why and does not name the file."""


@dataclass(frozen=True)
class Channel:
    """One topic as one storage file holds it.

    Attributes:
        id: the file's own number.
        topic: its name.
        msgtype: "package/msg/Type".
        encoding: "cdr", "ros1", or what else its messages are ("json", "protobuf").
        definition: text of the message definition, empty where the file has none.
        definition_kind: "msg", "idl", or "" where it is unknown.
        promised: messages that the file says it holds; None when it was not finished and cannot say.
        held: messages that the file holds, as far as they can be counted without reading them all.
        latched: whether late listeners got the last message (transient local in ROS 2, latched in ROS 1).
    """

    id: int
    topic: str
    msgtype: str
    encoding: str
    definition: str = field(default="", repr=False)
    definition_kind: str = ""
    promised: int | None = None
    held: int = 0
    latched: bool = False


class StorageFile(Protocol):
    """An open storage file.

    Attributes:
        channels: its topics.
        start_ns, end_ns: log times of the first and the last message; 0 when there is none.
        notes: sentences about what is damaged or missing; more may come while messages are read.
    """

    channels: list[Channel]
    start_ns: int
    end_ns: int
    notes: list[str]

    def messages(self, channels: Collection[int], start_ns: int, stop_ns: int) -> Iterator[Record]:
        """Messages of the given channels with `start_ns` <= log time < `stop_ns`, in order of log time."""

    def close(self) -> None:
        """Close the file."""


def normal_type(name: str) -> str:
    """The name of a message type as "package/msg/Type"; older bags write "package/Type"."""
    package, _, rest = name.replace("::", "/").partition("/")
    return f"{package}/msg/{rest.rpartition('/')[2]}" if rest else name


def is_latched(profiles: Any) -> bool:
    """Whether a topic's QoS profiles (YAML text, or a list of mappings) hold one that is transient local.

    People edit these, and versions differ in them: what is not understood counts as not latched.
    """
    if isinstance(profiles, str):
        try:
            profiles = yaml.safe_load(profiles)
        except yaml.YAMLError:
            return False
    found = profiles if isinstance(profiles, list) else []
    return any(isinstance(p, dict) and str(p.get("durability")).lower() in ("1", "transient_local") for p in found)


def in_time_order(sources: Iterable[tuple[int, Callable[[], Iterator[T]]]]) -> Iterator[T]:
    """Merge sources whose items start with a time; a source is opened when its turn has come.

    Args:
        sources: the earliest time of each source, and what opens it; its own items must be in order.
    """
    waiting = deque(sorted(sources, key=lambda source: source[0]))
    heap: list[tuple[int, int, T, Iterator[T]]] = []
    numbers = itertools.count()
    while waiting or heap:
        while waiting and (not heap or waiting[0][0] <= heap[0][0]):
            items = waiting.popleft()[1]()
            for item in items:
                heapq.heappush(heap, (item[0], next(numbers), item, items))
                break
        if not heap:
            continue
        _, number, item, items = heap[0]
        yield item
        following = next(items, None)
        if following is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (following[0], number, following, items))


def unpacked(data: bytes) -> bytes:
    """A message as it was sent: recorders may compress each message by itself (zstd), and not always say so.

    Raises:
        ValueError: the bytes cannot be decompressed, or give more than MAX_MESSAGE_BYTES.
    """
    if data[:4] != ZSTD_MAGIC:
        return data
    size = zstandard.frame_content_size(data)
    if not 0 <= size <= MAX_MESSAGE_BYTES:
        return decompressed(data, MAX_MESSAGE_BYTES)
    try:
        return zstandard.ZstdDecompressor().decompress(data)
    except zstandard.ZstdError as error:
        raise ValueError(f"zstd: {error}") from None


def decompressed(data: bytes, limit: int) -> bytes:
    """Decompress zstd; of an end that was cut off, what comes before it.

    Raises:
        ValueError: damaged bytes, or more than `limit` bytes come out.
    """
    found = bytearray()
    try:
        with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
            while len(found) <= limit and (piece := reader.read(min(1 << 20, limit + 1 - len(found)))):
                found += piece
    except zstandard.ZstdError as error:
        raise ValueError(f"zstd: {error}") from None
    if len(found) > limit:
        raise ValueError(f"zstd: more than {limit} bytes")
    return bytes(found)
