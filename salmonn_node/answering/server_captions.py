"""Captions: in idle time the server gives each event a short line of words, from its picture; none under load."""

from __future__ import annotations

import io
import logging
import threading
import time
import wave
from collections import Counter
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from salmonn_node.answering.server_client import ServerClient, ServerError, StoppedError
from salmonn_node.answering.server_prompts import caption_messages
from salmonn_node.answering.source import MemorySource
from salmonn_node.memory.log_entries import SOUND, LogEntry
from salmonn_node.stream.observations import SAMPLE_RATE_HZ, SECOND_NS

# An event is described once it has ended, so that its picture stays the same.
SETTLED_NS = 10 * SECOND_NS
CAPTION_TOKENS = 64
TRIES = 2
NO_SPEECH = "no speech"

log = logging.getLogger(__name__)


class Captioner:
    """Writes captions of one observer's log. `start` does so in a thread; without it, call `step`.

    Sounds get none, as a picture does not tell what was heard, unless a transcriber is set.

    Args:
        observer: holds the log, and takes the words in.
        client: asks the server.
        period_s: shortest time between two captions, seconds.
        busy: whether something more important is going on; then none is written.

    Attributes:
        counts: `written`, `failed`, `skipped` (turns left out under load).
    """

    def __init__(
        self, observer: MemorySource, client: ServerClient, period_s: float, busy: Callable[[], bool] = lambda: False
    ) -> None:
        self._observer, self._client, self._period_s, self._busy = observer, client, period_s, busy
        self._tries: Counter[str] = Counter()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.counts = {"written": 0, "failed": 0, "skipped": 0}

    def start(self) -> None:
        """Write captions in a thread until `close`."""
        if self._period_s > 0:
            self._thread = threading.Thread(target=self._run, name="captions", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop; a request that is under way is broken off."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            if self._busy():
                self.counts["skipped"] += 1
                continue
            try:
                self.step(self._observer.newest_ns - SETTLED_NS)
            except Exception:  # words are a help; their lack must not end the node
                self.counts["failed"] += 1
                log.exception("a caption could not be written")

    def step(self, until_ns: int) -> bool:
        """Caption the newest entry that has no words and ended by `until_ns`; returns whether one was tried."""
        entry = self._next(until_ns)
        if entry is None:
            return False
        self._tries[entry.key] += 1
        try:
            text = self._words(entry)
        except (ServerError, StoppedError):
            self.counts["failed"] += 1
            return True
        text = " ".join(text.rpartition("</think>")[2].replace("|", "/").split())
        if text and self._observer.caption(entry.key, text):
            self.counts["written"] += 1
        return True

    def _words(self, entry: LogEntry) -> str:
        """What the server says of an entry's sound or picture."""
        deadline = time.monotonic() + self._client.settings.server_timeout_s
        if entry.what == SOUND:
            assert entry.sound is not None
            said = self._client.transcribe(wav(entry.sound), deadline=deadline, cancel=self._stop)
            return f"says: {said}" if said.strip() else NO_SPEECH
        assert entry.picture is not None
        messages = caption_messages(entry.picture.jpeg)
        return self._client.chat(messages, deadline=deadline, cancel=self._stop, max_tokens=CAPTION_TOKENS)

    def _can_tell(self, entry: LogEntry) -> bool:
        """Whether there is something to write words from, and somebody who writes them."""
        if entry.what == SOUND:
            return entry.sound is not None and bool(self._client.settings.server_transcriber_model)
        return entry.picture is not None

    def _next(self, until_ns: int) -> LogEntry | None:
        held = self._observer.memory.log
        if held is None:
            return None
        waiting = [
            e
            for e in held.entries()
            if not e.caption and e.last_ns <= until_ns and self._tries[e.key] < TRIES and self._can_tell(e)
        ]
        return max(waiting, key=lambda e: (e.last_ns, e.key), default=None)


def wav(samples: npt.NDArray[np.int16]) -> bytes:
    """(n,) int16 samples at 16 kHz as a WAV file."""
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(samples.astype("<i2").tobytes())
    return data.getvalue()
