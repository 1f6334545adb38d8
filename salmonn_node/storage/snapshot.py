"""One snapshot on disk: tensors as safetensors, the rest as JSON, and a manifest with checksums. Written atomically."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salmonn_node.storage.files import FileLayer

# torch is imported where tensors are read or written, so that listing memories stays quick.
if TYPE_CHECKING:
    from torch import Tensor

SCHEMA_VERSION = 1
MANIFEST, TENSORS, EVIDENCE = "manifest.json", "state.safetensors", "evidence.db"
_NUMBER = re.compile(r"^\d{8}$")


class SnapshotError(Exception):
    """A snapshot cannot be used. The message names it and says why. Nothing was deleted."""


class DamagedError(SnapshotError):
    """A file is missing, cut short or altered."""


class IncompatibleError(SnapshotError):
    """The snapshot is whole, but belongs to another checkpoint, another configuration or a newer schema."""


@dataclass(frozen=True)
class Identity:
    """Identity of the network that made a memory. No other network can use the memory.

    Attributes:
        checkpoint: id of the checkpoint.
        config: the configuration values that shape the state, as text or digest.
    """

    checkpoint: str
    config: str

    def to_dict(self) -> dict[str, str]:
        """The identity as JSON values."""
        return {"checkpoint": self.checkpoint, "config": self.config}

    def check(self, stored: dict[str, Any], what: str) -> None:
        """Raise IncompatibleError, naming both sides, unless `stored` is this identity."""
        for key, mine in self.to_dict().items():
            if stored.get(key) != mine:
                raise IncompatibleError(f"{what} was made with {key} {stored.get(key)!r}; this node runs {mine!r}")


@dataclass(frozen=True)
class Manifest:
    """The manifest of a snapshot.

    Attributes:
        number: number of the snapshot; it increases within one memory.
        identity: checkpoint and configuration.
        segment: number of the journal segment that follows this snapshot.
        start_ns, newest_ns: first and newest stamp observed; 0, 0 when nothing was.
        state: JSON part of the state.
        files: name -> (bytes, SHA-256).
        forgotten: intervals that were forgotten; older snapshots that contain them must be deleted.
        machine: the machine that wrote it.
        schema: version of the format.
    """

    number: int
    identity: dict[str, str]
    segment: int
    start_ns: int = 0
    newest_ns: int = 0
    state: dict[str, Any] = field(default_factory=dict)
    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    forgotten: list[tuple[int, int]] = field(default_factory=list)
    machine: dict[str, str] = field(default_factory=dict)
    schema: int = SCHEMA_VERSION

    @property
    def bytes(self) -> int:
        """Size of the snapshot's files without the manifest."""
        return sum(size for size, _ in self.files.values())


def this_machine() -> dict[str, str]:
    """Describe this machine: everything that can change the last bits when observations are encoded again."""
    import torch

    return {"host": platform.node(), "machine": platform.machine(), "torch": torch.__version__,
            "threads": str(torch.get_num_threads())}  # fmt: skip


def written_elsewhere(manifest: Manifest) -> str:
    """How the machine that wrote a snapshot differs from this one, in words; "" where it does not."""
    differs = [
        f"{name} {manifest.machine.get(name, 'unknown')}, here {here}"
        for name, here in this_machine().items()
        if manifest.machine.get(name) != here
    ]
    if not differs:
        return ""
    return (
        f"snapshot {manifest.number} was written elsewhere ({'; '.join(differs)}): "
        "what came after it is encoded again here, and its last digits may differ"
    )


def snapshot_directories(root: Path) -> list[tuple[int, Path]]:
    """Snapshots under `root` with their numbers, the newest first. Unfinished ones are not included."""
    if not root.is_dir():
        return []
    return sorted(((int(p.name), p) for p in root.iterdir() if _NUMBER.match(p.name) and p.is_dir()), reverse=True)


def write_snapshot(
    files: FileLayer,
    root: Path,
    manifest: Manifest,
    tensors: dict[str, Tensor],
    copy_evidence: Callable[[Path], object] | None = None,
    progress: Callable[[str], object] = lambda text: None,
) -> Manifest:
    """Write snapshot `manifest.number` under `root`; returns the manifest with sizes and checksums.

    The write is atomic: an interruption leaves at most a directory whose name starts with a dot.

    Args:
        files: file operations.
        root: the memory's directory of snapshots.
        manifest: the manifest without `files` and `machine`.
        tensors: name -> tensor on the CPU; written bit for bit.
        copy_evidence: writes the evidence database to a path; None leaves it out.
        progress: called with a text that says what is being written.

    Raises:
        OSError: the snapshot could not be written; the unfinished directory is removed.
    """
    from safetensors.torch import save_file

    final = root / f"{manifest.number:08d}"
    building = root / f".building-{manifest.number:08d}"
    try:
        files.remove(building)
        files.make_directory(building)
        progress("writing the state")
        contents = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        files.write(building / TENSORS, lambda path: save_file(contents, path))
        names = [TENSORS]
        if copy_evidence is not None:
            progress("writing the evidence")
            files.write(building / EVIDENCE, copy_evidence)
            names.append(EVIDENCE)
        sums = {}
        for name in names:
            files.sync(building / name)
            sums[name] = ((building / name).stat().st_size, file_digest(building / name))
        complete = Manifest(**{**manifest.__dict__, "files": sums, "machine": this_machine()})
        text = _manifest_text(complete)
        files.write(building / MANIFEST, lambda path: path.write_text(text))
        files.sync(building / MANIFEST)
        files.sync_directory(building)
        files.rename(building, final)
        files.sync_directory(root)
    except Exception:
        # Best effort: if something is left over, its name starts with a dot, and it is never read.
        shutil.rmtree(building, ignore_errors=True)
        raise
    return complete


def read_manifest(directory: Path) -> Manifest:
    """Read and check the manifest of a snapshot. Its other files are not checked.

    Raises:
        DamagedError: the manifest is missing, cut short or altered.
        IncompatibleError: the manifest has a newer schema.
    """
    name = f"snapshot {directory.name}"
    try:
        outer = json.loads((directory / MANIFEST).read_bytes())
        body, expected = outer["body"], outer["sha256"]
        schema = int(outer["schema"])
    except FileNotFoundError as error:
        raise DamagedError(f"{name}: {MANIFEST} is missing") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError(f"{name}: {MANIFEST} cannot be read: {error}") from error
    if _digest(schema, body) != expected:
        raise DamagedError(f"{name}: {MANIFEST} fails its checksum")
    if schema > SCHEMA_VERSION:
        raise IncompatibleError(f"{name} has schema {schema}; this program reads up to {SCHEMA_VERSION}")
    return Manifest(
        number=body["number"],
        identity=body["identity"],
        segment=int(body["segment"]),
        start_ns=body["start_ns"],
        newest_ns=body["newest_ns"],
        state=body["state"],
        files={key: (int(size), digest) for key, (size, digest) in body["files"].items()},
        forgotten=[(start, end) for start, end in body["forgotten"]],
        machine=body["machine"],
        schema=schema,
    )


def verify_files(directory: Path, manifest: Manifest, progress: Callable[[int], object] = lambda count: None) -> None:
    """Compare every file of a snapshot with its manifest. Raises DamagedError naming the first file that differs.

    `progress` is called with the number of bytes of each piece that was read.
    """
    for name, (size, expected) in manifest.files.items():
        path = directory / name
        try:
            actual = path.stat().st_size
            if actual != size:
                raise DamagedError(f"snapshot {directory.name}: {name} has {actual} bytes instead of {size}")
            if file_digest(path, progress) != expected:
                raise DamagedError(f"snapshot {directory.name}: {name} fails its checksum")
        except OSError as error:
            raise DamagedError(f"snapshot {directory.name}: {name} cannot be read: {error.strerror}") from error


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """Read the tensors of a snapshot. Call `verify_files` first."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(directory / TENSORS)
    except (OSError, SafetensorError) as error:
        raise DamagedError(f"snapshot {directory.name}: {TENSORS} cannot be read: {error}") from error


def file_digest(path: Path, progress: Callable[[int], object] = lambda count: None) -> str:
    """SHA-256 of a file."""
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 22):
            total.update(piece)
            progress(len(piece))
    return total.hexdigest()


def _manifest_text(manifest: Manifest) -> str:
    # Convert through JSON first, so that the digest covers what a reader will see (keys are text, tuples are lists).
    body = json.loads(json.dumps({key: value for key, value in manifest.__dict__.items() if key != "schema"}))
    return json.dumps({"schema": manifest.schema, "sha256": _digest(manifest.schema, body), "body": body}, indent=1)


def _digest(schema: int, body: dict[str, Any]) -> str:
    return hashlib.sha256(f"{schema}\n{json.dumps(body, sort_keys=True)}".encode()).hexdigest()
