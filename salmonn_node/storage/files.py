"""The few file operations that persistence rests on, behind one interface, so that tests can make each of them fail."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


class FileLayer:
    """Plain POSIX operations. Nothing is durable before `sync` (contents) and `sync_directory` (names)."""

    def make_directory(self, path: Path) -> None:
        """Create a directory that only its owner may enter (0700); one that exists stays as it is."""
        path.mkdir(mode=0o700, exist_ok=True)

    def open_append(self, path: Path) -> BinaryIO:
        """Create a file for appending, unbuffered: what `append` was given survives the death of the process."""
        return open(path, "xb", buffering=0)

    def append(self, file: BinaryIO, data: bytes) -> None:
        """Write all of `data` at the end."""
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]

    def truncate(self, file: BinaryIO, size: int) -> None:
        """Cut an open file to `size` bytes."""
        file.truncate(size)
        file.seek(size)

    def write(self, path: Path, fill: Callable[[Path], object]) -> None:
        """Let `fill(path)` write a whole file."""
        fill(path)

    def sync(self, path: Path) -> None:
        """Bring a file's contents to the disk."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Bring a directory's names to the disk: creations, renames, removals."""
        self.sync(path)

    def rename(self, old: Path, new: Path) -> None:
        """Rename within one file system; atomic."""
        os.rename(old, new)

    def remove(self, path: Path) -> None:
        """Remove a file or a whole directory; one that is not there is no error."""
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
