"""A recording as messages: rosbag2 (MCAP or SQLite; split, compressed, damaged) or ROS 1, without ROS."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from salmonn_node.replay.decoding import ENCODINGS, Decode, decoder_of
from salmonn_node.replay.recording_files import BagError, find_files, open_file
from salmonn_node.replay.storage_file import Channel, StorageError, StorageFile, in_time_order
from salmonn_node.stream.observations import SECOND_NS

END_NS = 2**63 - 1


@dataclass(frozen=True)
class Topic:
    """One topic of a recording.

    Attributes:
        name: as recorded.
        msgtype: "package/msg/Type".
        count: messages that the files hold, as far as they can be counted without reading them all.
        promised: messages that metadata.yaml, or else the files, say there are; None when neither does.
        encoding: "cdr", "ros1", or what else the messages are.
        latched: whether late listeners got the last message.
    """

    name: str
    msgtype: str
    count: int
    promised: int | None
    encoding: str = "cdr"
    latched: bool = False


class Bag:
    """An open recording; use it in a `with` statement.

    Args:
        path: folder of a rosbag2, or an .mcap, .db3 or .bag file.
        takes: whether a topic is read; the others are as if they were not there.

    Attributes:
        left_out: topics that `takes` refuses.
        topics: all topics by name.
        channels: one channel of each topic, which tells how its messages are read.
        start_ns, end_ns: log times of the first and the last message, 0 without messages.

    Raises:
        BagError: nothing of it can be read.
    """

    def __init__(self, path: Path, takes: Callable[[str], bool] = lambda topic: True) -> None:
        self.path = Path(path)
        self.left_out: list[str] = []
        self._takes = takes
        self._stack = ExitStack()
        self._files: list[tuple[Path, StorageFile]] = []
        self._decoders: dict[str, Decode] = {}
        found = find_files(self.path)
        self._notes = found.notes
        try:
            for file in found.files:
                self._open(file)
        except BaseException:
            self.close()
            raise
        if not self._files:
            raise BagError(f"{self.path}: cannot be read as a recording: {'; '.join(self._notes)}")
        self.channels, self.topics = self._merged(found.promised)
        timed = [file for _, file in self._files if file.end_ns]
        self.start_ns = min((file.start_ns for file in timed), default=0)
        self.end_ns = max((file.end_ns for file in timed), default=0)

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the files and remove copies of them."""
        self._stack.close()

    @property
    def duration_s(self) -> float:
        """Length by the recorder's clock, in seconds."""
        return (self.end_ns - self.start_ns) / SECOND_NS

    @property
    def notes(self) -> list[str]:
        """Sentences about what is missing or damaged; reading the messages may add to them."""
        return self._notes + [f"{path.name}: {note}" for path, file in self._files for note in file.notes]

    def raw(
        self, start_ns: int = 0, stop_ns: int = 0, topics: Collection[str] | None = None
    ) -> Iterator[tuple[str, str, int, bytes]]:
        """Topic, message type, log time and bytes of each message in order of log time.

        Args:
            start_ns: the earliest log time.
            stop_ns: messages are earlier than this log time; 0 is the end.
            topics: these only; None gives all whose bytes are those of ROS messages.
        """
        wanted = set(self.channels if topics is None else topics) & self.channels.keys()
        wanted = {topic for topic in wanted if self.channels[topic].encoding in ENCODINGS}
        sources = []
        for _, file in self._files:
            names = {c.id: c.topic for c in file.channels if c.topic in wanted and self._agrees(c)}
            if names and file.end_ns >= start_ns:
                opened = partial(_named, file, names, start_ns, stop_ns or END_NS)
                sources.append((file.start_ns, opened))
        for log_ns, topic, data in in_time_order(sources):
            yield topic, self.channels[topic].msgtype, log_ns, data

    def decode(self, topic: str, data: bytes) -> Any:
        """A message object of a topic's bytes.

        Raises:
            ValueError: the bytes are no message of the topic's type, or nobody defines the type.
        """
        decoder = self._decoders.get(topic)
        if decoder is None:
            decoder = self._decoders[topic] = decoder_of(self.channels[topic])
        return decoder(data)

    def first(self, topic: str) -> Any:
        """The first message of a topic that can be decoded among its first ten; None without one."""
        for number, (_, _, _, data) in enumerate(self.raw(topics=[topic])):
            try:
                return self.decode(topic, data)
            except ValueError:
                if number == 9:
                    return None
        return None

    # -- opening --------------------------------------------------------------------------------------------------

    def _open(self, path: Path) -> None:
        try:
            file = open_file(path, self._scratch)
        except (StorageError, OSError) as error:
            self._notes.append(f"{path.name} cannot be read: {error}")
            return
        self._stack.callback(file.close)
        self._files.append((path, file))

    def _scratch(self) -> Path:
        folder = tempfile.TemporaryDirectory(prefix="salmonn-bag-")
        return Path(self._stack.enter_context(folder))

    def _merged(self, promised: Counter[str] | None) -> tuple[dict[str, Channel], list[Topic]]:
        """Channels by topic, and the topics, over all files."""
        by_topic: dict[str, list[Channel]] = {}
        for _, file in self._files:
            for channel in file.channels:
                by_topic.setdefault(channel.topic, []).append(channel)
        chosen, topics = {}, []
        self.left_out = sorted(name for name in by_topic if not self._takes(name))
        for name in sorted(by_topic.keys() - set(self.left_out)):
            held: Counter[tuple[str, str]] = Counter()
            for channel in by_topic[name]:
                held[channel.msgtype, channel.encoding] += channel.held
            kind = max(held, key=lambda key: (held[key], key[1] in ENCODINGS))
            for other in held.keys() - {kind}:
                self._notes.append(
                    f"{name}: {held[other]} messages of type {other[0]} are not read, most are {kind[0]}"
                )
            same = [c for c in by_topic[name] if (c.msgtype, c.encoding) == kind]
            chosen[name] = max(same, key=lambda c: bool(c.definition))
            own = None if any(c.promised is None for c in same) else sum(c.promised or 0 for c in same)
            told = promised[name] if promised is not None and name in promised else own
            latched = any(c.latched for c in same)
            topics.append(Topic(name, kind[0], held[kind], told, kind[1], latched))
        for name, count in sorted((promised or Counter[str]()).items()):
            if name not in by_topic:
                self._notes.append(f"{name}: metadata.yaml promises {count} messages, no file has this topic")
        return chosen, topics

    def _agrees(self, channel: Channel) -> bool:
        chosen = self.channels[channel.topic]
        return (channel.msgtype, channel.encoding) == (chosen.msgtype, chosen.encoding)


def _named(file: StorageFile, names: dict[int, str], start_ns: int, stop_ns: int) -> Iterator[tuple[int, str, bytes]]:
    return ((log_ns, names[channel], data) for log_ns, channel, data in file.messages(names, start_ns, stop_ns))
