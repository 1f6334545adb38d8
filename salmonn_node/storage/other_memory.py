"""Memories beside the running one: write a copy under another name, delete one."""

from __future__ import annotations

from salmonn_node.memory.evidence_index import EvidenceIndex
from salmonn_node.storage.cleanup import remove_snapshot
from salmonn_node.storage.directory import Lock, MemoryPlace, describe
from salmonn_node.storage.files import FileLayer
from salmonn_node.storage.snapshot import Identity, Manifest, snapshot_directories, write_snapshot
from salmonn_node.storage.state import State


def write_copy(
    target: MemoryPlace, files: FileLayer, identity: Identity, state: State, evidence: EvidenceIndex, *, overwrite: bool
) -> Manifest:
    """Write a state and the evidence as a memory of its own.

    Args:
        target: the paths of that memory.
        files: file operations.
        identity: checkpoint and configuration of the state.
        state: the state to write.
        evidence: the evidence index, which is copied.
        overwrite: whether a memory of that name is replaced, once the new one is written.

    Raises:
        FileExistsError: the name is taken and `overwrite` is false.
        LockedError: another process uses that memory.
        OSError: the write failed; an existing memory of that name is kept.
    """
    before = snapshot_directories(target.snapshots)
    if before and not overwrite:
        raise FileExistsError(f"memory {target.name!r} exists")
    target.create(files)
    lock = Lock(target)
    try:
        segments = target.segments()
        taken = [n for n, _ in segments] + [m.segment for m in describe(target).manifests]
        number, segment = max([n for n, _ in before], default=0) + 1, max(taken, default=0) + 1
        manifest = state.manifest(number, segment, identity, evidence.position())
        written = write_snapshot(files, target.snapshots, manifest, state.on_cpu(), evidence.copy_to)
        for _, path in before:
            remove_snapshot(files, path)
        for _, path in segments:
            files.remove(path)
    finally:
        lock.release()
    return written


def remove_memory(target: MemoryPlace, files: FileLayer) -> None:
    """Delete a stored memory. Raises LockedError when a process uses it."""
    lock = Lock(target)
    try:
        files.remove(target.directory)
        files.sync_directory(target.root)
    finally:
        lock.release()
