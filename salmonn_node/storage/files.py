"""The file operations of persistence behind one interface, so that tests can make each of them fail."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


class FileLayer:
    """Plain POSIX file operations. Contents are durable after `sync`, names after `sync_directory`."""

    def make_directory(self, path: Path) -> None:
        """Create a directory that only its owner may enter (0700). An existing directory is left unchanged."""
        path.mkdir(mode=0o700, exist_ok=True)

    def open_append(self, path: Path) -> BinaryIO:
        """Create a file for appending, unbuffered, so that appended data survives the death of the process."""
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
        """Write a whole file by calling `fill(path)`."""
        fill(path)

    def sync(self, path: Path) -> None:
        """Flush a file's contents to the disk (fsync)."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Flush a directory's entries to the disk: creations, renames, removals."""
        self.sync(path)

    def rename(self, old: Path, new: Path) -> None:
        """Rename atomically within one file system."""
        os.rename(old, new)

    def remove(self, path: Path) -> None:
        """Remove a file or a whole directory. A missing path is no error."""
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
