"""The directory of stored memories: each memory has a name, and a lock lets at most one process use it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from salmonn_node.storage.files import FileLayer
from salmonn_node.storage.snapshot import Manifest, SnapshotError, read_manifest, snapshot_directories

_NAME = re.compile(r"^[A-Za-z0-9_-]{1,64}$")
LOCK = "lock"
PROBE_S = 0.2  # `in_use` in another process holds the lock for less than this
_SEGMENT = re.compile(r"^(\d{8})\.log$")


class LockedError(SnapshotError):
    """Another process uses the memory."""


def default_root() -> Path:
    """The default directory: $XDG_DATA_HOME/salmonn_node/memories, or the same under ~/.local/share.

    Raises:
        ValueError: XDG_DATA_HOME is not set, and the user has no home directory.
    """
    if data := os.environ.get("XDG_DATA_HOME"):
        return Path(data) / "salmonn_node" / "memories"
    try:
        home = Path.home()
    except RuntimeError:
        raise ValueError(
            "this user has no home directory to keep memories in: set the node's parameter memory_directory, "
            "`salmonn memory --directory`, or the variable XDG_DATA_HOME"
        ) from None
    return home / ".local" / "share" / "salmonn_node" / "memories"


def check_name(name: str) -> str:
    """Check that `name` is 1 to 64 letters, digits, '-' or '_', so never a path. Returns it, or raises ValueError."""
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
        """Directory of everything that belongs to this memory."""
        return self.root / self.name

    @property
    def snapshots(self) -> Path:
        """Directory of the snapshots."""
        return self.directory / "snapshots"

    @property
    def journal(self) -> Path:
        """Directory of the journal's segments."""
        return self.directory / "journal"

    @property
    def evidence(self) -> Path:
        """Path of the evidence database."""
        return self.directory / "evidence.db"

    def exists(self) -> bool:
        """Whether a memory of this name is stored."""
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
        """Journal segments with their numbers, the oldest first."""
        if not self.journal.is_dir():
            return []
        found = ((_SEGMENT.match(path.name), path) for path in self.journal.iterdir())
        return sorted((int(match[1]), path) for match, path in found if match)

    def size_bytes(self) -> int:
        """Size of all files in bytes, including evidence. A running node may remove files during the count."""
        total = 0
        for folder, _, names in os.walk(self.directory):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    total += os.stat(os.path.join(folder, name)).st_size
        return total


class Lock:
    """An exclusive lock on one memory. It ends with the process, however the process ends."""

    def __init__(self, place: MemoryPlace) -> None:
        """Lock the memory.

        Raises:
            LockedError: another process uses it.
            OSError: the lock file cannot be made.
        """
        self._file = os.open(place.directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.geteuid() == 0:
                # When root works on the memory of the robot's user, that user must be able to open the lock later.
                owner = place.directory.stat()
                os.fchown(self._file, owner.st_uid, owner.st_gid)
            self._take(place)
        except BaseException:
            self.release()
            raise

    def _take(self, place: MemoryPlace) -> None:
        deadline = time.monotonic() + PROBE_S
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() < deadline:  # perhaps another process only runs `in_use`
                    time.sleep(PROBE_S / 10)
                    continue
                holder = os.pread(self._file, 200, 0).decode(errors="replace").strip() or "another process"
                raise LockedError(f"memory {place.name!r} is in use by {holder}") from error
        # This text is only for people. A full disk must not prevent the use of a memory.
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, json.dumps({"pid": os.getpid(), "host": platform.node()}).encode(), 0)

    def release(self) -> None:
        """Release the lock. You may call it twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def in_use(place: MemoryPlace) -> bool:
    """Whether a process uses a memory. Writes nothing; False when the lock file cannot be read."""
    try:
        file = os.open(place.directory / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


@dataclass(frozen=True)
class StoredMemory:
    """Description of a stored memory, made without loading it.

    Attributes:
        name: its name.
        size_bytes: size of all its files.
        manifests: manifests of the readable snapshots, the newest first.
        problems: one line for each snapshot that cannot be read, with the reason.
    """

    name: str
    size_bytes: int
    manifests: list[Manifest] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def describe(place: MemoryPlace) -> StoredMemory:
    """Describe one stored memory without changing it. Raises FileNotFoundError when it does not exist."""
    if not place.exists():
        raise FileNotFoundError(f"no memory named {place.name!r} in {place.root}")
    manifests, problems = [], []
    for _, path in snapshot_directories(place.snapshots):
        try:
            manifests.append(read_manifest(path))
        except SnapshotError as error:
            if path.is_dir():  # otherwise a running node has just removed it
                problems.append(str(error))
    return StoredMemory(place.name, place.size_bytes(), manifests, problems)


def list_memories(root: Path) -> list[str]:
    """Names of all stored memories."""
    if not root.is_dir():
        return []
    names = (path.name for path in root.iterdir() if _NAME.match(path.name) and not path.is_symlink())
    return sorted(name for name in names if MemoryPlace(root, name).exists())


def set_aside(place: MemoryPlace) -> MemoryPlace:
    """Rename a memory, even a damaged one, so that its name is free. Returns the new place.

    Raises:
        FileNotFoundError: the memory does not exist.
        LockedError: a node uses it.
    """
    if not place.directory.is_dir():
        raise FileNotFoundError(f"there is no {place.directory}")
    lock = Lock(place)
    try:
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        target = MemoryPlace(place.root, f"{place.name[:40]}-aside-{stamp}")
        place.directory.rename(target.directory)
    finally:
        lock.release()
    return target
