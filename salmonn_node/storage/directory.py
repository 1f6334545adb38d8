"""Where memories lie: one directory of named memories, entered by name only, each held by at most one node."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
from dataclasses import dataclass, field
from pathlib import Path

from salmonn_node.storage.files import FileLayer
from salmonn_node.storage.snapshot import Manifest, SnapshotError, read_manifest, snapshot_directories

_NAME = re.compile(r"^[A-Za-z0-9_-]{1,64}$")
_SEGMENT = re.compile(r"^(\d{8})\.log$")


class LockedError(SnapshotError):
    """Another process holds the memory."""


def default_root() -> Path:
    """$XDG_DATA_HOME/salmonn_node/memories, or under ~/.local/share."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "salmonn_node" / "memories"


def check_name(name: str) -> str:
    """Return `name` when it is 1 to 64 letters, digits, '-' or '_'; raise ValueError otherwise: never a path."""
    if not isinstance(name, str) or not _NAME.match(name) or name != name.strip():
        raise ValueError(f"memory name must be 1 to 64 letters, digits, '-' or '_', got {name!r}")
    return name


@dataclass(frozen=True)
class MemoryPlace:
    """The paths of one memory."""

    root: Path
    name: str

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.directory.is_symlink():
            raise ValueError(f"memory {self.name!r} is a symbolic link; only plain directories are used")

    @property
    def directory(self) -> Path:
        """Of everything that belongs to this memory."""
        return self.root / self.name

    @property
    def snapshots(self) -> Path:
        """Of the snapshots."""
        return self.directory / "snapshots"

    @property
    def journal(self) -> Path:
        """Of the journal's segments."""
        return self.directory / "journal"

    @property
    def evidence(self) -> Path:
        """The evidence database."""
        return self.directory / "evidence.db"

    def exists(self) -> bool:
        """Whether such a memory is stored."""
        return self.snapshots.is_dir()

    def create(self, files: FileLayer) -> None:
        """Make the directories, each open to its owner only."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (self.directory, self.snapshots, self.journal):
            if not path.is_dir():
                files.make_directory(path)
                files.sync_directory(path.parent)

    def segment(self, number: int) -> Path:
        """Path of a journal segment."""
        return self.journal / f"{number:08d}.log"

    def segments(self) -> list[tuple[int, Path]]:
        """Numbered journal segments, the oldest first."""
        if not self.journal.is_dir():
            return []
        found = ((_SEGMENT.match(path.name), path) for path in self.journal.iterdir())
        return sorted((int(match[1]), path) for match, path in found if match)

    def size_bytes(self) -> int:
        """Bytes of all files, evidence included."""
        return sum(path.stat().st_size for path in self.directory.rglob("*") if path.is_file())


class Lock:
    """An exclusive hold on one memory; it ends with the process, whatever ends that."""

    def __init__(self, place: MemoryPlace) -> None:
        """Raises LockedError when another process holds it."""
        self._file = os.open(place.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._file, 200, 0).decode(errors="replace").strip() or "another process"
            os.close(self._file)
            raise LockedError(f"memory {place.name!r} is in use by {holder}") from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, json.dumps({"pid": os.getpid(), "host": platform.node()}).encode(), 0)

    def release(self) -> None:
        """Let go; twice is no error."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


@dataclass(frozen=True)
class StoredMemory:
    """What can be told about a stored memory without loading it.

    Attributes:
        manifests: of its readable snapshots, the newest first.
        problems: snapshots that cannot be read, and why.
    """

    name: str
    size_bytes: int
    manifests: list[Manifest] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def describe(place: MemoryPlace) -> StoredMemory:
    """Look at one stored memory; changes nothing. Raises FileNotFoundError when there is none of that name."""
    if not place.exists():
        raise FileNotFoundError(f"no memory named {place.name!r} in {place.root}")
    manifests, problems = [], []
    for _, path in snapshot_directories(place.snapshots):
        try:
            manifests.append(read_manifest(path))
        except SnapshotError as error:
            problems.append(str(error))
    return StoredMemory(place.name, place.size_bytes(), manifests, problems)


def list_memories(root: Path) -> list[str]:
    """Names of all stored memories."""
    if not root.is_dir():
        return []
    names = (path.name for path in root.iterdir() if _NAME.match(path.name) and not path.is_symlink())
    return sorted(name for name in names if MemoryPlace(root, name).exists())
