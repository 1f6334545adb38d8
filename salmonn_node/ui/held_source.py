"""A memory in this process as the page's source: that of a recording, or a stored one. Nothing of it changes."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from salmonn_node.memory.kept import kept_timeline, moment_near
from salmonn_node.runtime.server import reader_in_words
from salmonn_node.stream.answers import Answer, ErrorCode, Evidence, Question
from salmonn_node.stream.kept_timeline import KeptTimeline
from salmonn_node.stream.observations import Interval
from salmonn_node.ui.source import Abilities, Exchange, MemoryFacts, RefusedError, SourceState, WatchResult

if TYPE_CHECKING:
    from salmonn_node.answering.answerer import Answerer
    from salmonn_node.ingest.observer import Observer

RECENT = 20
UNCHANGING = "This memory is only read: nothing in it changes."


class HeldSource:
    """Asks an answerer over an observer that takes nothing more in; see `Source`.

    Args:
        title: what it is, in a few words.
        observer, answerer: hold the memory.
        notes: what a person should know, one sentence each.
        origin_ns: times are shown in seconds since this stamp; 0: as time of day.
        play: gives the sound of a microphone within an interval as a WAV file; None: there is none.
    """

    def __init__(
        self,
        title: str,
        observer: Observer,
        answerer: Answerer,
        *,
        notes: tuple[str, ...] = (),
        origin_ns: int = 0,
        play: Callable[[str, Interval], bytes] | None = None,
    ) -> None:
        self.title, self.origin_ns = title, origin_ns
        self.abilities = Abilities(sound=play is not None)
        self.python_call = 'memory = Memory(node, "salmonn")'
        self._observer, self._answerer, self._play = observer, answerer, play
        self._recent: deque[Exchange] = deque(maxlen=RECENT)
        self._one = threading.Lock()  # one question at a time
        self._state = SourceState(True, f"The {title} can be asked.", _facts(observer, answerer), notes=notes)

    def close(self) -> None:
        """The caller lets go of the memory."""

    def state(self) -> SourceState:
        """It never changes."""
        return self._state

    def recent(self) -> tuple[Exchange, ...]:
        """The last questions of this process, newest first."""
        return tuple(self._recent)

    def ask(self, question: Question, on_text: Callable[[str], None], cancel: threading.Event) -> Answer:
        """Ask; waits while another page asks."""
        deadline = time.monotonic() + question.timeout_s
        so_far = ""

        def add(piece: str) -> None:
            nonlocal so_far
            so_far += piece
            on_text(so_far)

        while not self._one.acquire(timeout=0.05):
            if cancel.is_set():
                return Answer(error_code=ErrorCode.CANCELED, error_msg="canceled by the caller")
            if time.monotonic() >= deadline:
                return Answer(error_code=ErrorCode.BUSY, error_msg="another page's question takes the whole time")
        try:
            answer = self._answerer.ask(question, deadline=deadline, cancel=cancel, on_text=add)
        finally:
            self._one.release()
        if answer.error_code == ErrorCode.NONE:
            self._recent.appendleft(Exchange(question.text, answer))
        return answer

    def timeline(self, interval: Interval | None, max_bins: int, max_poses: int) -> KeptTimeline:
        """What is held."""
        after_ns, before_ns = (interval.start_ns, interval.end_ns) if interval else (0, 0)
        observer = self._observer
        return kept_timeline(
            observer.memory,
            observer.evidence,
            observer.memory_id,
            after_ns=after_ns,
            before_ns=before_ns,
            max_bins=max_bins,
            max_poses=max_poses,
        )

    def moment(self, source: str, stamp_ns: int) -> Evidence:
        """What a camera or microphone gave."""
        found = moment_near(self._observer.memory, self._observer.evidence, source, stamp_ns)
        if found is None:
            raise RefusedError(f"Nothing of {source} is kept.")
        return found

    def sound(self, source: str, interval: Interval) -> bytes:
        """The sound of an interval."""
        if self._play is None:
            raise RefusedError("A stored memory keeps what it made of the sound, not the sound itself.")
        try:
            return self._play(source, interval)
        except (OSError, ValueError) as error:
            raise RefusedError(str(error)) from error

    def watch(self, question: Question, on_look: Callable[[int], None], cancel: threading.Event) -> WatchResult:
        """Nothing new comes."""
        raise RefusedError(UNCHANGING)

    def stored(self) -> tuple[str, ...]:
        """It looks after no others."""
        raise RefusedError(UNCHANGING)

    def forget(self, interval: Interval | None) -> str:
        """It is only read."""
        raise RefusedError(UNCHANGING)

    def save(self, name: str, overwrite: bool) -> str:
        """It is only read."""
        raise RefusedError(UNCHANGING)

    def load(self, name: str) -> str:
        """It is only read."""
        raise RefusedError(UNCHANGING)


def _facts(observer: Observer, answerer: Answerer) -> MemoryFacts:
    status, checkpoint = observer.status(), observer.model.checkpoint
    return MemoryFacts(
        memory_id=status.memory_id,
        session=status.session,
        start_ns=status.start_ns,
        newest_ns=status.newest_ns,
        frames=status.frames,
        audio_s=float(status.audio_s),
        poses=status.poses,
        visual_tokens=status.tokens[0],
        visual_budget=status.budgets[0],
        audio_tokens=status.tokens[1],
        audio_budget=status.budgets[1],
        drops=dict(status.drops),
        checkpoint_id=checkpoint.id,
        checkpoint_trained=checkpoint.trained,
        reader=reader_in_words(answerer.server),
        persistence="read only",
    )
