"""What the page shows and asks: one interface for a running node, a recording and a stored memory. Plain values."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from salmonn_node.stream.answers import Answer, Evidence, Question
from salmonn_node.stream.kept_timeline import KeptTimeline
from salmonn_node.stream.observations import Interval

OK, WARNING, ERROR, STALE = range(4)  # levels of /diagnostics


class RefusedError(Exception):
    """What was asked for cannot be done; the text says why and what to do."""


@dataclass(frozen=True)
class Abilities:
    """What can be done with a source; the page leaves out the rest.

    Attributes:
        live: it observes while one looks, so the page keeps reading it.
        watch: a question can be watched.
        change: an interval can be forgotten, the memory saved and another one loaded.
        sound: the sound of a piece of evidence can be played.
    """

    live: bool = False
    watch: bool = False
    change: bool = False
    sound: bool = False


@dataclass(frozen=True)
class Part:
    """One line of health: of the node, an input, the memory or the questions.

    Attributes:
        name: "node", "input front", "memory", "space", "questions".
        level: OK, WARNING, ERROR or STALE.
        message: what is wrong, in words; empty when nothing is.
        values: the figures as text, by the names of /diagnostics.
    """

    name: str
    level: int
    message: str
    values: Mapping[str, str]


@dataclass(frozen=True)
class MemoryFacts:
    """What the memory holds; names and units as in MemoryStatus.msg, stamps in ns."""

    memory_id: str = ""
    session: int = 0
    start_ns: int = 0
    newest_ns: int = 0
    frames: int = 0
    audio_s: float = 0.0
    poses: int = 0
    visual_tokens: int = 0
    visual_budget: int = 0
    audio_tokens: int = 0
    audio_budget: int = 0
    drops: Mapping[str, int] = field(default_factory=dict)
    vision_backend: str = ""
    vision_backend_reason: str = ""
    audio_backend: str = ""
    audio_backend_reason: str = ""
    checkpoint_id: str = ""
    checkpoint_trained: bool = True
    reader: str = ""
    last_snapshot_ns: int = 0
    persistence: str = ""


@dataclass(frozen=True)
class SourceState:
    """How the source is now.

    Attributes:
        reachable: whether it can be asked.
        text: one sentence about that.
        facts: None before the first was heard.
        health: the parts of /diagnostics; empty where there are none.
        notes: what a person should know, such as what was left out of a recording.
    """

    reachable: bool
    text: str
    facts: MemoryFacts | None = None
    health: tuple[Part, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exchange:
    """A question with its answer."""

    text: str
    answer: Answer


@dataclass(frozen=True)
class WatchResult:
    """How a watch ended: whether the question became true, the last answer, and how often it was asked."""

    became_true: bool
    answer: Answer
    evaluations: int


class Source(Protocol):
    """What the page needs. Every method but `state` and `recent` may block, so call it in a thread.

    Attributes:
        title: what it is, in a few words.
        abilities: what can be done with it.
        origin_ns: times are shown in seconds since this stamp; 0: as time of day.
        python_call: the line that makes the client's `memory` in Python.
    """

    title: str
    abilities: Abilities
    origin_ns: int
    python_call: str

    def state(self) -> SourceState:
        """How it is now; returns at once."""

    def recent(self) -> tuple[Exchange, ...]:
        """The last questions with their answers, newest first; returns at once."""

    def ask(self, question: Question, on_text: Callable[[str], None], cancel: threading.Event) -> Answer:
        """Ask; never raises. `on_text` is called with the text so far."""

    def watch(self, question: Question, on_look: Callable[[int], None], cancel: threading.Event) -> WatchResult:
        """Ask about everything new until the answer is yes. Raises RefusedError where `abilities.watch` is false."""

    def timeline(self, interval: Interval | None, max_bins: int, max_poses: int) -> KeptTimeline:
        """What is still held within an interval, or at all. Raises RefusedError."""

    def moment(self, source: str, stamp_ns: int) -> Evidence:
        """What a camera or microphone gave nearest to a stamp. Raises RefusedError when nothing is kept."""

    def sound(self, source: str, interval: Interval) -> bytes:
        """The sound as a WAV file. Raises RefusedError where there is none."""

    def stored(self) -> tuple[str, ...]:
        """Names of the stored memories. Raises RefusedError."""

    def forget(self, interval: Interval | None) -> str:
        """Forget an interval, or everything; returns what went. Raises RefusedError."""

    def save(self, name: str, overwrite: bool) -> str:
        """Save under a name (empty: its own); returns the name. Raises RefusedError."""

    def load(self, name: str) -> str:
        """Put a stored memory in place of the running one; returns its id. Raises RefusedError."""

    def close(self) -> None:
        """Let go of it."""
