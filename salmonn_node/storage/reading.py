"""Reads a stored memory without changing it: for a person who looks, while a node may go on using it."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from salmonn_node.ingest.observer import Observer
from salmonn_node.memory.evidence_index import EvidenceIndex
from salmonn_node.storage.directory import MemoryPlace, describe
from salmonn_node.storage.journal import Mark
from salmonn_node.storage.persistence import SESSION, identity_of
from salmonn_node.storage.restore import Restorer
from salmonn_node.storage.snapshot import EVIDENCE, DamagedError

if TYPE_CHECKING:
    from salmonn_node.model.video_salmonn_s import VideoSalmonnS


@contextlib.contextmanager
def reading(place: MemoryPlace, model: VideoSalmonnS) -> Iterator[tuple[Observer, tuple[str, ...]]]:
    """A stored memory as an observer that takes nothing in, and what was lost or left out of it, in words.

    The newest whole snapshot and the journal behind it are read. The evidence is copied into a private temporary
    folder, which goes with the context. No file of the memory changes, and it is not locked.

    Raises:
        FileNotFoundError: there is no memory of this name.
        SnapshotError: it is damaged, or belongs to another checkpoint or configuration.
    """
    describe(place)
    with tempfile.TemporaryDirectory(prefix="salmonn-reading-") as folder:
        evidence = EvidenceIndex(Path(folder) / "evidence.db")
        try:
            if place.evidence.is_file():
                evidence.copy_from(place.evidence)
            observer = Observer(model, evidence=evidence, memory_name=place.name, inline=True)
            moments = evidence.sizes()["moments"]
            restorer = Restorer(place, identity_of(model), moments=moments, lacked_snapshots=False, notes=[])
            manifest, tensors = restorer.choose(None)
            if manifest is not None:
                if EVIDENCE in manifest.files:
                    evidence.copy_from(place.snapshots / f"{manifest.number:08d}" / EVIDENCE)
                observer.restore(tensors, manifest.state["values"])
            evidence.rewind({} if manifest is None else manifest.state["evidence"])
            for record in restorer.follow(0 if manifest is None else manifest.segment):
                if not isinstance(record, Mark):
                    observer.retake(record)
                elif record.name == SESSION:
                    observer.retake_session(int(record.data["number"]))
            yield observer, tuple(restorer.report.notes)
        except sqlite3.Error as error:
            raise DamagedError(f"memory {place.name!r}: its evidence cannot be read: {error}") from error
        finally:
            evidence.close()
