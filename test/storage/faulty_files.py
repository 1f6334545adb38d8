"""A file layer that fails on purpose: a crash at the n-th operation, a full disk from the n-th on, a power cut."""

from __future__ import annotations

import errno
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from salmonn_node.storage.files import FileLayer


class Crash(BaseException):
    """The process died here: no handler of ordinary errors sees it."""


@dataclass
class _File:
    durable: bytes = b""


@dataclass
class _Directory:
    live: dict[str, _File | _Directory] = field(default_factory=dict)
    durable: dict[str, _File | _Directory] = field(default_factory=dict)


class FaultyFiles(FileLayer):
    """Counts operations and fails at the chosen one.

    Args:
        root: below it, contents that were not synced and names whose directory was not synced are lost in `power_cut`.
        crash_at: raise Crash at this operation (from 1), a write being half done by then; 0 never.
        full_at: writes fail with ENOSPC from this operation on, half done; 0 never.
    """

    def __init__(self, root: Path, *, crash_at: int = 0, full_at: int = 0) -> None:
        self.root, self.crash_at, self.full_at = root, crash_at, full_at
        self.operations: list[str] = []
        self._tree = _Directory()

    def _next(self, name: str, path: Path) -> tuple[bool, bool]:
        self.operations.append(f"{name} {path.relative_to(self.root)}")
        count = len(self.operations)
        return bool(self.crash_at) and count == self.crash_at, bool(self.full_at) and count >= self.full_at

    def _directory(self, path: Path) -> _Directory:
        node = self._tree
        for part in path.relative_to(self.root).parts:
            child = node.live.setdefault(part, _Directory())
            assert isinstance(child, _Directory)
            node = child
        return node

    def _file(self, path: Path) -> _File:
        child = self._directory(path.parent).live.setdefault(path.name, _File())
        assert isinstance(child, _File)
        return child

    def _plain(self, name: str, path: Path) -> None:
        crash, _ = self._next(name, path)
        if crash:
            raise Crash(self.operations[-1])

    def make_directory(self, path: Path) -> None:
        self._plain("mkdir", path)
        super().make_directory(path)
        self._directory(path)

    def open_append(self, path: Path) -> BinaryIO:
        crash, full = self._next("open", path)
        if crash:
            raise Crash(self.operations[-1])
        if full:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        self._file(path)
        return super().open_append(path)

    def append(self, file: BinaryIO, data: bytes) -> None:
        crash, full = self._next("append", Path(file.name))
        super().append(file, data[: len(data) // 2] if crash or full else data)
        if crash:
            raise Crash(self.operations[-1])
        if full:
            raise OSError(errno.ENOSPC, "No space left on device", file.name)

    def write(self, path: Path, fill: Callable[[Path], object]) -> None:
        crash, full = self._next("write", path)
        super().write(path, fill)
        self._file(path)
        if crash or full:
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
        if crash:
            raise Crash(self.operations[-1])
        if full:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    def sync(self, path: Path) -> None:
        self._plain("sync", path)
        if path.is_file():
            self._file(path).durable = path.read_bytes()
        super().sync(path)

    def sync_directory(self, path: Path) -> None:
        self._plain("sync-directory", path)
        node = self._directory(path) if path != self.root.parent else self._tree
        node.durable = dict(node.live)

    def rename(self, old: Path, new: Path) -> None:
        self._plain("rename", new)
        super().rename(old, new)
        known = self._directory(old.parent).live.pop(old.name, None)  # None: it was made without this layer
        self._directory(new.parent).live[new.name] = known or (_Directory() if new.is_dir() else _File())

    def remove(self, path: Path) -> None:
        self._plain("remove", path)
        super().remove(path)
        self._directory(path.parent).live.pop(path.name, None)

    def power_cut(self, seed: int = 0) -> None:
        """Leave on the disk what was synced; of each file's unsynced tail, a random part stays."""
        chance = random.Random(seed)
        live = {path: path.read_bytes() for path in self.root.rglob("*") if path.is_file()}

        def rebuild(node: _Directory, path: Path) -> None:
            for name, child in node.durable.items():
                if isinstance(child, _Directory):
                    (path / name).mkdir(mode=0o700, exist_ok=True)
                    rebuild(child, path / name)
                else:
                    tail = live.get(path / name, b"")[len(child.durable) :]
                    (path / name).write_bytes(child.durable + tail[: chance.randint(0, len(tail))])

        # SQLite writes its own files; its durability is its own promise and not simulated here.
        evidence = {path: data for path, data in live.items() if path.name.startswith(("evidence.db", "lock"))}
        shutil.rmtree(self.root)
        self.root.mkdir(mode=0o700)
        rebuild(self._tree, self.root)
        for path, data in evidence.items():
            if path.parent.is_dir():
                path.write_bytes(data)
