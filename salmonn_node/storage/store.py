"""The store of one memory on disk: snapshots, the journal since the newest one, and the evidence database."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from salmonn_node.storage.absence import missing_parts
from salmonn_node.storage.cleanup import Cleanup
from salmonn_node.storage.directory import Lock, MemoryPlace, describe
from salmonn_node.storage.evidence_file import open_evidence
from salmonn_node.storage.files import FileLayer
from salmonn_node.storage.journal import SYNC_PERIOD_S, JournalWriter, Record
from salmonn_node.storage.other_memory import remove_memory, write_copy
from salmonn_node.storage.restore import ROOT, Restorer, RestoreReport, fits
from salmonn_node.storage.snapshot import (
    EVIDENCE,
    Identity,
    Manifest,
    read_tensors,
    snapshot_directories,
    write_snapshot,
    written_elsewhere,
)
from salmonn_node.storage.state import State
from salmonn_node.stream.observations import Interval

RETRY_S = 5.0  # after a failed write, wait this long before the next snapshot


class MemoryStore:
    """The files of one named memory.

    Call `append` and `snapshot` from one thread; you may call the other methods from any thread. Order of calls: the
    constructor takes the lock, `restore` loads the stored state, `append` journals each observation before the memory
    gets it, `snapshot` writes the state and starts a new journal segment, `close` releases the memory.

    Args:
        root: the configured directory of memories.
        name: the memory's name, never a path.
        identity: checkpoint and configuration; a memory with another identity is refused.
        keep: number of snapshots to keep, each with the journal that follows it.
        max_bytes: bound on disk use. The oldest evidence is deleted first, then the oldest snapshots, never the last.
        sync_period_s: the most that a power cut loses, seconds; 0 syncs only at snapshots (for tests).
        compress: whether to journal pictures as PNG.
        evidence_bounds: `max_moments` and `max_bytes` of the evidence index.
        files: file operations.

    Attributes:
        place: the paths of the memory.
        evidence: the evidence index.
        problem: why the disk does not take what is observed; "" when it does.
        snapshots_written, snapshots_failed, bytes_written: counters of this process.
        last_snapshot_s: how long writing the last snapshot took, seconds.

    Raises:
        ValueError: a bad name or bound.
        LockedError: another process uses the memory.
        OSError: the directory cannot be made or written.
    """

    def __init__(
        self,
        root: Path,
        name: str,
        identity: Identity,
        *,
        keep: int = 3,
        max_bytes: int = 8 << 30,
        sync_period_s: float = SYNC_PERIOD_S,
        compress: bool = True,
        evidence_bounds: dict[str, int] | None = None,
        files: FileLayer | None = None,
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        if max_bytes < 1 << 20:
            raise ValueError(f"max_bytes must be at least 1 MiB, got {max_bytes}")
        self.place = MemoryPlace(Path(root), name)
        self.identity, self.max_bytes = identity, max_bytes
        self.problem = ""
        self.snapshots_written = 0
        self.snapshots_failed = 0
        self.bytes_written = 0
        self.last_snapshot_s = 0.0
        self._files = files or FileLayer()
        self._cleanup = Cleanup(self.place, self._files, keep, max_bytes)
        self._sync_period_s, self._compress = sync_period_s, compress
        self._damaged: set[int] = set()
        self._journal: JournalWriter | None = None
        self._position = ROOT
        self._next_segment = 0
        self._gap = False
        self._writer: threading.Thread | None = None
        self._last_snapshot = time.monotonic()
        # `create` makes this folder before anything else is written. If it is missing, somebody removed it.
        self._lacked_snapshots = self.place.directory.is_dir() and not self.place.snapshots.is_dir()
        self.place.create(self._files)
        self._lock = Lock(self.place)
        try:
            self.evidence, self._notes = open_evidence(self.place, evidence_bounds or {})
        except BaseException:
            self._lock.release()
            raise

    # -- restoring --------------------------------------------------------------------------------------------------

    def restore(
        self,
        load: Callable[[dict[str, Tensor], dict[str, Any]], object],
        replay: Callable[[Record], object],
        *,
        number: int | None = None,
        progress: Callable[[str], object] = lambda text: None,
    ) -> RestoreReport:
        """Restore the stored state: load a snapshot, then replay the journal that follows it.

        If a snapshot is damaged, an older one is used, whose journal leads to the same state; the report says so.
        Afterwards `append` continues where the journal ended.

        Args:
            load: called with a snapshot's tensors and values; not called for an empty memory.
            replay: called with each later record, in order.
            number: the snapshot to load; None for the newest.
            progress: called with a text that says what is being restored.

        Raises:
            IncompatibleError: the newest snapshot belongs to another checkpoint, another configuration or a newer
                schema. The message names older snapshots that fit. Nothing was changed.
            DamagedError: no whole snapshot is left. Nothing was changed.
        """
        started = time.monotonic()
        restorer = Restorer(
            self.place,
            self.identity,
            moments=self.evidence.sizes()["moments"],
            lacked_snapshots=self._lacked_snapshots,
            notes=self._notes,
        )
        report = restorer.report
        manifest, tensors = restorer.choose(number)
        self._damaged |= restorer.damaged
        if manifest is not None:
            report.snapshot = manifest.number
            directory = self.place.snapshots / f"{manifest.number:08d}"
            if EVIDENCE in manifest.files:
                self.evidence.copy_from(directory / EVIDENCE)
            progress(f"snapshot {manifest.number}")
            if manifest.forgotten:
                self._cleanup.erase(manifest)  # perhaps a forget was interrupted before it had deleted everything
            if not self._notes:  # which tell of damaged evidence
                for loss in missing_parts(self.place, manifest, self.evidence.position()):
                    report.lose(loss)
            load(tensors, manifest.state["values"])
            self.evidence.rewind(manifest.state["evidence"])
            if elsewhere := written_elsewhere(manifest):
                report.notes.append(elsewhere)
        else:
            self.evidence.rewind({})
        for record in restorer.follow(0 if manifest is None else manifest.segment):
            replay(record)
            report.records += 1
            progress(f"journal, observation {report.records}")
        self._position = restorer.position
        report.duration_s = time.monotonic() - started
        return report

    # -- journaling and snapshots -------------------------------------------------------------------------------------

    def _begin_segment(self, continues: tuple[int, int] | None) -> tuple[int, JournalWriter | None]:
        """Begin a new segment; the writer is None when the write failed. `continues` is None after a gap."""
        if not self._next_segment:
            taken = [n for n, _ in self.place.segments()] + [m.segment for m in self._manifests()]
            self._next_segment = max([*taken, self._position[0]], default=0) + 1
        number = self._next_segment
        self._next_segment += 1
        try:
            writer = JournalWriter(
                self._files,
                self.place.segment(number),
                {"continues": continues, "identity": self.identity.to_dict()},
                sync_period_s=self._sync_period_s,
                compress=self._compress,
            )
        except OSError as error:
            self._gap = True
            self.problem = f"journal: {error.strerror or error}"
            return number, None
        return number, writer

    def _manifests(self) -> list[Manifest]:
        """Manifests of the readable snapshots, the newest first."""
        return describe(self.place).manifests

    def append(self, record: Record) -> bool:
        """Journal an observation before the memory gets it. Returns False when the write failed; see `problem`.

        A failing disk raises nothing. Observing goes on, and the next snapshot contains what was not journaled.
        """
        if self._journal is None and not self._gap:
            _, self._journal = self._begin_segment(self._position)
        journal = self._journal
        if journal is None or self._gap:
            return False
        before = journal.bytes
        if not journal.append(record):
            self._gap = True
            self.problem = f"journal {journal.failed}"
            return False
        self.bytes_written += journal.bytes - before
        return True

    def due(self, period_s: float) -> bool:
        """Whether to take a snapshot now: the period is over or the journal is long or failed, and none is running."""
        if self._writer is not None and self._writer.is_alive():
            return False
        age_s = time.monotonic() - self._last_snapshot
        journal_bytes = self._journal.bytes if self._journal is not None else 0
        if journal_bytes > self.max_bytes // 4 or (self._gap and age_s > RETRY_S):
            return True
        return 0 < period_s <= age_s

    def snapshot(self, state: State, *, beside: bool = False, forgotten: Interval | None = None) -> bool:
        """Write a snapshot of `state`, which must hold everything observed so far, and start a new journal segment.

        Call it between two observations.

        Args:
            state: the state to write.
            beside: return at once and write in a thread.
            forgotten: an interval that was forgotten. Older snapshots that contain it and the earlier journal are
                deleted.

        Returns:
            Whether the snapshot is on disk; True at once with `beside`.
        """
        self.wait()
        self._last_snapshot = time.monotonic()
        old, self._journal = self._journal, None
        position = self._position if old is None else (int(old.path.stem), old.records)
        gap, self._gap = self._gap, False
        # After a gap, the new segment follows only this snapshot, not the older journal.
        segment, self._journal = self._begin_segment(None if gap else position)
        number = max([n for n, _ in snapshot_directories(self.place.snapshots)], default=0) + 1
        manifest = state.manifest(number, segment, self.identity, self.evidence.position(), forgotten)
        if not beside:
            return self._write(manifest, state, old)
        self._writer = threading.Thread(target=self._write, args=(manifest, state, old), name="snapshot")
        self._writer.start()
        return True

    def give_up_snapshot(self, problem: str) -> None:
        """Count a snapshot that could not be started. The next one is due one period later."""
        self._last_snapshot = time.monotonic()
        self.snapshots_failed += 1
        self.problem = problem

    def _write(self, manifest: Manifest, state: State, old: JournalWriter | None) -> bool:
        started = time.monotonic()
        try:
            if old is not None:
                old.close()
            self.evidence.sync()
            written = write_snapshot(self._files, self.place.snapshots, manifest, state.on_cpu())
            self.snapshots_written += 1
            self.bytes_written += written.bytes
            self.last_snapshot_s = time.monotonic() - started
            if manifest.forgotten:
                self._cleanup.erase(manifest)
            self.problem = self._cleanup.shrink(self.evidence, self._damaged)
        except (OSError, sqlite3.Error, SafetensorError) as error:
            self.snapshots_failed += 1
            self.problem = f"snapshot {manifest.number}: {getattr(error, 'strerror', None) or error}"
            return False
        return True

    def save_as(self, name: str, state: State, *, overwrite: bool = False) -> Manifest:
        """Write `state` and the evidence as another memory. The running memory does not change.

        Raises:
            ValueError: the name is invalid or is that of the running memory.
            FileExistsError: the name is taken and `overwrite` is false.
            LockedError: another process uses that memory.
            OSError: the write failed; an existing memory of that name is kept.
        """
        target = MemoryPlace(self.place.root, name)
        if name == self.place.name:
            raise ValueError(f"memory {name!r} is the running one: take a snapshot instead")
        return write_copy(target, self._files, self.identity, state, self.evidence, overwrite=overwrite)

    def remove(self, name: str) -> None:
        """Delete another stored memory. Raises LockedError when a process uses it, ValueError for the running one."""
        target = MemoryPlace(self.place.root, name)
        if name == self.place.name:
            raise ValueError(f"memory {name!r} is the running one")
        remove_memory(target, self._files)

    def weights_before(self, stamp_ns: int) -> tuple[dict[str, Tensor], Manifest] | None:
        """Tensors and manifest of the newest whole snapshot from before `stamp_ns`; None when there is none."""
        for manifest in self._manifests():
            directory = self.place.snapshots / f"{manifest.number:08d}"
            if 0 < manifest.newest_ns < stamp_ns and fits(directory, self.identity):
                return read_tensors(directory), manifest
        return None

    def wait(self) -> None:
        """Wait until no snapshot is being written."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None

    def close(self) -> None:
        """Finish writing and release the memory. You may call it twice."""
        try:
            self.wait()
            if self._journal is not None:
                self._journal.close()
                self._journal = None
            self.evidence.close()
        except (OSError, sqlite3.Error) as error:  # a full disk; what was written earlier is kept
            self.problem = f"closing: {error}"
        finally:
            self._lock.release()
