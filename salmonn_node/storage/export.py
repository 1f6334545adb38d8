"""Export a memory as a tar file, and find the files of a memory that a restore does not need."""

from __future__ import annotations

import errno
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

from salmonn_node.storage.directory import LOCK, Lock, MemoryPlace
from salmonn_node.storage.snapshot import Manifest, SnapshotError, read_manifest, snapshot_directories, verify_files


def export_memory(place: MemoryPlace, file: Path, on_bytes: Callable[[int], object] = lambda count: None) -> None:
    """Write a memory as a tar file. Unpack it into another directory of memories. Only its owner may read it.

    Args:
        place: the memory.
        file: the tar file; it must not exist yet.
        on_bytes: called with the size in bytes of each packed file.

    Raises:
        FileExistsError: `file` exists.
        LockedError: a node uses the memory.
    """
    if file.exists():
        raise FileExistsError(f"{file} exists; name a file that does not")
    lock = _lock_to_read(place)
    unfinished = file.with_name(f"{file.name}.part")
    try:
        with tarfile.open(unfinished, "w") as tar:
            for path in [place.directory, *sorted(place.directory.rglob("*"))]:
                if path.name == LOCK or ".building-" in str(path):
                    continue
                tar.add(path, arcname=str(path.relative_to(place.root)), recursive=False, filter=_private)
                on_bytes(path.stat().st_size)
        os.chmod(unfinished, 0o600)
        unfinished.rename(file)
    finally:
        unfinished.unlink(missing_ok=True)
        if lock is not None:
            lock.release()


def _lock_to_read(place: MemoryPlace) -> Lock | None:
    """Lock the memory while it is read; None on a disk that cannot be written, where no node can use it either."""
    try:
        return Lock(place)
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            return None
        raise


def _private(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Make the unpacked files readable by their owner only, because they hold pictures of a home."""
    entry.mode = 0o700 if entry.isdir() else 0o600
    return entry


def superfluous(place: MemoryPlace, keep: int, damaged: bool) -> list[Path]:
    """List the files and folders of a memory that a restore does not need.

    Args:
        place: the memory.
        keep: how many whole snapshots to keep, the newest ones, with the journal that follows the oldest of them.
        damaged: whether to list damaged snapshots and evidence, too.
    """
    whole: list[Manifest] = []
    gone = sorted(place.snapshots.glob(".building-*"))
    for _, path in snapshot_directories(place.snapshots):
        try:
            manifest = read_manifest(path)
            verify_files(path, manifest)
        except SnapshotError:
            if damaged:
                gone.append(path)
            continue
        if len(whole) < keep:
            whole.append(manifest)
        else:
            gone.append(path)
    if whole:
        gone += [path for number, path in place.segments() if number < whole[-1].segment]
    if damaged:
        gone += sorted(place.directory.glob("evidence.damaged-*"))
    return gone
