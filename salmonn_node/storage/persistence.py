"""Keeps an observer's memory on disk: journals each observation, takes snapshots, restores, saves and forgets."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from salmonn_node.storage.directory import MemoryPlace, describe, list_memories
from salmonn_node.storage.journal import Mark, Record
from salmonn_node.storage.restore import RestoreReport
from salmonn_node.storage.snapshot import Identity, IncompatibleError, Manifest
from salmonn_node.storage.state import State
from salmonn_node.storage.store import MemoryStore
from salmonn_node.stream.observations import AudioSpan, Frame, Interval, Pose

if TYPE_CHECKING:
    from salmonn_node.ingest.observer import Observer
    from salmonn_node.memory.stream_memory import StreamMemory
    from salmonn_node.model.video_salmonn_s import VideoSalmonnS

log = logging.getLogger(__name__)

END_OF_TIME_NS = 2**63 - 1
PREVIOUS = "-previous"  # suffix under which earlier versions kept the previous session
SESSION = "session"  # name of the journal mark at the start of a session
CAPTION = "caption"  # name of the journal mark of words for an entry of the event log


def identity_of(model: VideoSalmonnS) -> Identity:
    """Identity of a network: checkpoint id and a digest of all configuration values. Only it can use its memories."""
    config = json.dumps(model.config.to_dict(), sort_keys=True, default=str)
    return Identity(model.checkpoint.id, hashlib.sha256(config.encode()).hexdigest()[:16])


def caption_mark(key: str, text: str) -> Mark:
    """Words of an entry of the event log, for the journal."""
    return Mark(CAPTION, {"key": key, "text": text})


def retake_caption(observer: Observer, record: Record) -> None:
    """Give the log the words of a journal record again; other records are left alone."""
    if isinstance(record, Mark) and record.name == CAPTION:
        observer.caption(str(record.data["key"]), str(record.data["text"]))


@dataclass(frozen=True)
class Forgotten:
    """Result of `Persistence.forget`.

    Attributes:
        tokens, evidence: how many were removed.
        weights_reverted: whether the fast weights went back to an earlier value; what they learned later is lost.
        weights_from_ns: stamp of the newest observation that they now contain; 0 for their initial value.
        copies: names of other stored memories that still contain the interval.
    """

    tokens: int
    evidence: int
    weights_reverted: bool
    weights_from_ns: int
    copies: list[str]


class Persistence:
    """Connects an observer to a store. Make the observer with `evidence=store.evidence`, call `restore`, then observe.

    Args:
        observer: the observer; this class records its observations and sets its hook `on_session`.
        store: an open store with the identity of the same model.
        snapshot_period_s: seconds between snapshots; 0 takes them only on request or when the journal grows long.
        sessions_kept: how many earlier sessions stay on disk, each as a memory `NAME-session-NUMBER`. The oldest are
            deleted first.

    Attributes:
        pauses_s: how long each of the last snapshots paused the observer, seconds.
    """

    def __init__(
        self, observer: Observer, store: MemoryStore, *, snapshot_period_s: float = 300.0, sessions_kept: int = 5
    ) -> None:
        self.observer, self.store, self.snapshot_period_s = observer, store, snapshot_period_s
        self.pauses_s: deque[float] = deque(maxlen=1024)
        self.sessions_kept = sessions_kept
        self._span = (0, 0)
        self._keep_session = True
        observer.record_to(self._record)
        observer.on_session = self._on_session
        observer.on_caption = self._on_caption

    @property
    def newest_ns(self) -> int:
        """Newest stamp over all sessions; 0 before the first observation."""
        return self._span[1]

    # -- restoring ------------------------------------------------------------------------------------------------

    def restore(
        self, *, number: int | None = None, progress: Callable[[str], object] = lambda text: None
    ) -> RestoreReport:
        """Restore the observer's memory from disk. Arguments and errors are those of `MemoryStore.restore`."""

        def load(tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
            try:
                self.observer.restore(tensors, values)
                self._span = int(values["span"][0]), int(values["span"][1])
            except (KeyError, TypeError, ValueError) as error:
                raise IncompatibleError(
                    f"memory {self.store.place.name!r} does not fit the network: {error}"
                ) from error

        def again(record: Record) -> None:
            self._note_span(record)
            try:
                if not isinstance(record, Mark):
                    self.observer.retake(record)
                elif record.name == SESSION:
                    self.observer.retake_session(int(record.data["number"]))
                else:
                    retake_caption(self.observer, record)
            except Exception:
                # It also failed when it was observed. It was counted then, and observing went on.
                log.exception("an observation of the journal could not be added to the memory")

        # Do not journal observations that come from the journal.
        self.observer.record_to(None)
        self.observer.on_caption = None
        try:
            return self.store.restore(load, again, number=number, progress=progress)
        finally:
            self.observer.record_to(self._record)
            self.observer.on_caption = self._on_caption

    # -- beside ingest --------------------------------------------------------------------------------------------

    def _record(self, observation: Frame | AudioSpan | Pose) -> None:
        """Journal an observation. Runs on the worker, just before the memory gets the observation."""
        if not isinstance(observation, Pose) and self.store.due(self.snapshot_period_s):
            self._snapshot_beside()
        self.store.append(observation)
        self._note_span(observation)

    def _note_span(self, observation: Any) -> None:
        stamp_ns = getattr(observation, "stamp_ns", 0) or getattr(observation, "start_ns", 0)
        end_ns = observation.end_ns if isinstance(observation, AudioSpan) else stamp_ns
        if stamp_ns:
            self._span = (min(self._span[0] or stamp_ns, stamp_ns), max(self._span[1], end_ns))

    def _state(self) -> State:
        """Everything to store. Call it within `observer.still()` or on the worker."""
        tensors, values = self.observer.to_state()
        return State(tensors, {**values, "span": list(self._span)}, *self._span)

    def _snapshot_beside(self) -> None:
        started = time.perf_counter()
        try:
            self.store.snapshot(self._state(), beside=True)
        except Exception as error:  # observing goes on; diagnostics show the problem
            log.exception("a snapshot could not be started")
            self.store.give_up_snapshot(f"snapshot: {type(error).__name__}: {error}")
        self.pauses_s.append(time.perf_counter() - started)

    def _on_session(self, number: int, old: StreamMemory) -> None:
        """Store the old session under another name, unless it is empty, and mark the new one in the journal."""
        intake = self.observer.intake
        if self._keep_session and self.sessions_kept and (intake.frames or intake.audio_s or intake.poses):
            name = f"{self._session_stem}{number - 1}"
            try:
                self.store.save_as(name, self._state(), overwrite=True)
                for old_name in self.kept_sessions()[: -self.sessions_kept]:
                    self.store.remove(old_name)
            except Exception as error:  # the disk or another node; the new session begins anyway
                self.store.problem = f"the previous session could not be saved as {name!r}: {error}"
        self.store.append(Mark(SESSION, {"number": number}))

    def _on_caption(self, key: str, text: str) -> None:
        """Journal the words of an entry of the event log."""
        self.store.append(caption_mark(key, text))

    @property
    def _session_stem(self) -> str:
        """First part of the names of kept sessions, cut because a name has at most 64 characters."""
        return f"{self.store.place.name[:40]}-session-"

    def kept_sessions(self) -> list[str]:
        """Names of the earlier sessions on disk, the oldest first. You can list and load each like any memory."""
        stem = self._session_stem
        numbers = [name[len(stem) :] for name in list_memories(self.store.place.root) if name.startswith(stem)]
        return [f"{stem}{number}" for number in sorted(int(text) for text in numbers if text.isdecimal())]

    # -- on request -----------------------------------------------------------------------------------------------

    def save(self) -> bool:
        """Take a snapshot now while observing goes on. True when it is on disk; otherwise see `store.problem`."""
        failed = self.store.snapshots_failed
        self.store.wait()
        with self.observer.still():
            self._snapshot_beside()
        self.store.wait()
        return self.store.snapshots_failed == failed

    def save_as(self, name: str, *, overwrite: bool = False) -> Manifest:
        """Write the memory under another name. Errors are those of `MemoryStore.save_as`."""
        with self.observer.still():
            state = self._state()
        return self.store.save_as(name, state, overwrite=overwrite)

    def forget(self, interval: Interval) -> Forgotten:
        """Remove an interval from memory and disk: tokens, waiting input, evidence, thumbnails, journal, snapshots.

        The fast weights cannot forget only a part. They go back to the newest snapshot from before the interval, or to
        their initial value.

        Raises:
            OSError: the new snapshot could not be written. The memory has forgotten the interval; the disk has not.
        """
        self.store.wait()
        with self.observer.still():
            seen = self._span[1] >= interval.start_ns and 0 < self._span[0] <= interval.end_ns
            weights_from_ns = 0
            weights: dict[str, Tensor] | None = None
            found = self.store.weights_before(interval.start_ns) if seen else None
            if found is not None:
                weights, manifest = found
                weights_from_ns = manifest.newest_ns
            evidence = self.store.evidence.forget(interval)
            tokens = self.observer.intake.forget(interval, weights) if seen else 0
            done = self.store.snapshot(self._state(), forgotten=interval)
        copies = self._copies(interval)
        if not done:
            raise OSError(self.store.problem)
        return Forgotten(tokens, evidence, seen, weights_from_ns, copies)

    def _copies(self, interval: Interval) -> list[str]:
        """Names of other memories that contain the interval. Automatic copies of earlier sessions are deleted."""
        root, mine = self.store.place.root, self.store.place.name
        automatic = {mine[: 64 - len(PREVIOUS)] + PREVIOUS, *self.kept_sessions()}
        names = []
        for name in list_memories(root):
            if name == mine:
                continue
            held = describe(MemoryPlace(root, name))
            spans = [Interval(m.start_ns, m.newest_ns) for m in held.manifests if m.newest_ns]
            if held.problems or any(span.overlaps(interval) for span in spans):
                if name in automatic:
                    self.store.remove(name)
                else:
                    names.append(name)
        return names

    def clear(self) -> None:
        """Forget everything, also on disk, and begin a new session. Raises OSError when the disk write failed."""
        self.store.wait()
        self._keep_session = False
        try:
            self.observer.restart()
            self.observer.drain()
        finally:
            self._keep_session = True
        with self.observer.still():
            self._span = (0, 0)
            state = self._state()
            done = self.store.snapshot(replace(state, start_ns=0, newest_ns=0), forgotten=Interval(0, END_OF_TIME_NS))
        self._copies(Interval(0, END_OF_TIME_NS))
        if not done:
            raise OSError(self.store.problem)

    def close(self) -> None:
        """Close the store. Call `save` and stop the observer first."""
        self.observer.record_to(None)
        self.observer.on_session = self.observer.on_caption = None
        self.store.close()
