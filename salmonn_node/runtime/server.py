"""A server as the reader of a running memory: the log that it needs, the reader, and the captions in idle time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from salmonn_node.answering.server_settings import ServerSettings

if TYPE_CHECKING:
    from salmonn_node.answering.grounding import Grounding
    from salmonn_node.answering.server_captions import Captioner
    from salmonn_node.answering.server_reader import ServerReader
    from salmonn_node.ingest.observer import Observer
    from salmonn_node.model.video_salmonn_s import VideoSalmonnS

# Observations that wait to be taken in; with more, nothing is captioned.
LOADED = 16
# Sound that waits for a transcriber: four minutes.
SOUND_BYTES = 8 << 20


@dataclass
class ServerParts:
    """The reader and the captions of a running memory."""

    reader: ServerReader
    captions: Captioner

    def values(self) -> dict[str, object]:
        """State and counts for diagnostics."""
        client = self.reader.client
        found: dict[str, object] = {"reader": client.settings.where, "circuit_breaker": client.breaker.state}
        found |= {f"requests.{name}": count for name, count in client.counts.items()}
        found |= {f"answers.{name}": count for name, count in self.reader.counts.items()}
        found |= {f"captions.{name}": count for name, count in self.captions.counts.items()}
        log = self.reader.observer.memory.log
        entries = [] if log is None else log.entries()
        found["log.entries"] = len(entries)
        found["log.captions"] = sum(bool(entry.caption) for entry in entries)
        found["log.bytes"] = 0 if log is None else log.nbytes
        return found

    def close(self) -> None:
        """Stop the captions."""
        self.captions.close()


def reader_in_words(reader: ServerReader | None) -> str:
    """Who answers, and where log and pictures go; None is the network of this process."""
    return (ServerSettings() if reader is None else reader.client.settings).where


def keep_log(model: VideoSalmonnS, settings: ServerSettings, checkpoint: str) -> None:
    """Let every new memory of a network, of this checkpoint, keep an event log if a server answers, else none."""
    if not settings.outside:
        model.event_log = None
        return
    from salmonn_node.memory.event_log import EventLog, EventLogConfig
    from salmonn_node.model.checkpoint import event_heads

    config = EventLogConfig(sound_bytes=SOUND_BYTES if settings.server_transcriber_model else 0)
    model.event_log = EventLog(model.event_heads or event_heads(checkpoint), config)


def server_reader(settings: ServerSettings, observer: Observer, grounding: Grounding | None) -> ServerReader | None:
    """The reader at a server, None where the network answers. Nothing is connected.

    Raises:
        ValueError: a setting cannot be met; see `ServerSettings.check`.
    """
    if not settings.outside:
        return None
    settings.check()
    try:
        from salmonn_node.answering.server_client import ServerClient
    except ImportError:
        raise ValueError('reader: server needs the package httpx: pip install "salmonn_node[server]"') from None
    from salmonn_node.answering.server_reader import ServerReader
    from salmonn_node.answering.typed import no_object

    return ServerReader(observer, ServerClient(settings), no_object if grounding is None else grounding.object_pose)


def server_parts(observer: Observer, reader: ServerReader | None) -> ServerParts | None:
    """Reader and captions of a live memory, the captions running; None where the network answers."""
    if reader is None:
        return None
    from salmonn_node.answering.server_captions import Captioner

    def busy() -> bool:
        return reader.busy or sum(observer.status().queue.values()) > LOADED

    captions = Captioner(observer, reader.client, reader.client.settings.server_caption_period_s, busy)
    captions.start()
    return ServerParts(reader, captions)
