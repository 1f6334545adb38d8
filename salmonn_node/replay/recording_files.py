"""Which storage files a recording consists of, and what its metadata.yaml promises."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
import zstandard

from salmonn_node.replay.mcap_file import McapFile
from salmonn_node.replay.ros1_file import Ros1File
from salmonn_node.replay.sqlite_file import SqliteFile
from salmonn_node.replay.storage_file import StorageError, StorageFile

METADATA = "metadata.yaml"
SUFFIXES = (".mcap", ".db3", ".bag", ".mcap.zstd", ".db3.zstd")
_NUMBERED = re.compile(r"(?P<stem>.*?)(?:_(?P<number>\d+))?(?:\.mcap|\.db3)(?:\.zstd)?$")


class BagError(ValueError):
    """A recording that cannot be read; the message names it, says why, and what can be done."""


@dataclass
class Found:
    """What a path names.

    Attributes:
        files: the storage files.
        promised: topic -> messages by metadata.yaml; None without one that says so.
        notes: sentences about what is missing or odd.
    """

    files: list[Path] = field(default_factory=list)
    promised: Counter[str] | None = None
    notes: list[str] = field(default_factory=list)


def find_files(path: Path) -> Found:
    """The storage files of a rosbag2 folder, or the one file that a path names.

    Raises:
        BagError: there is no such path, or a folder that is no single recording.
    """
    if not path.exists():
        raise BagError(f"{path}: no such file or directory")
    if not path.is_dir():
        return Found([path])
    metadata = path / METADATA
    found = Found()
    listed = _read_metadata(metadata, found) if metadata.is_file() else None
    if listed is None:
        found.files = _one_recording(path)
        if not metadata.is_file():
            names = ", ".join(file.name for file in found.files)
            found.notes.append(f"{METADATA} is missing: {names} read without it")
        return found
    found.files = [file for name in listed if (file := _present(path, name)) is not None]
    for name in listed:
        if _present(path, name) is None:
            found.notes.append(f"{name} is missing, although {METADATA} lists it")
    _add_later_files(path, found)
    if not found.files:
        raise BagError(
            f"{path}: none of the files that {METADATA} lists is there: {', '.join(listed) or 'it lists none'}"
        )
    return found


def open_file(path: Path, scratch: Callable[[], Path]) -> StorageFile:
    """Open a storage file by its ending.

    Args:
        path: the file.
        scratch: gives a new folder for copies, where the file cannot be read in place.

    Raises:
        StorageError: nothing of it can be read.
    """
    if path.suffix == ".zstd":
        path = _unpacked(path, scratch())
    if path.suffix == ".db3":
        return SqliteFile(path, scratch)
    if path.suffix == ".bag":
        return Ros1File(path)
    if path.suffix == ".mcap":
        return McapFile(path)
    raise StorageError(f"its ending is none of {', '.join(SUFFIXES)}")


def _read_metadata(metadata: Path, found: Found) -> list[str] | None:
    """Names of the listed files, with promises and oddities noted; None when nothing can be made of it."""
    try:
        content = yaml.safe_load(metadata.read_text(encoding="utf-8"))
        info = content["rosbag2_bagfile_information"]
        listed = [Path(str(name)).name for name in info["relative_file_paths"]]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        found.notes.append(f"{METADATA} cannot be used ({type(error).__name__}): the storage files are read without it")
        return None
    promised: Counter[str] = Counter()
    try:
        for entry in info["topics_with_message_count"]:
            topic = entry["topic_metadata"]
            promised[str(topic["name"])] += int(entry["message_count"])
            if not _is_qos(topic.get("offered_qos_profiles")):
                found.notes.append(f"{METADATA}: the QoS of {topic['name']} has another shape, it is not used")
    except (KeyError, TypeError, ValueError, AttributeError):
        found.notes.append(f"{METADATA} does not say how many messages there are")
        return listed
    # A recorder that dies leaves zeros behind: that is no promise.
    found.promised = promised if promised.total() else None
    return listed


def _is_qos(profiles: Any) -> bool:
    """Whether QoS profiles have the shape that rosbag2 writes: a list of mappings, or YAML text of one."""
    if isinstance(profiles, str):
        try:
            profiles = yaml.safe_load(profiles)
        except yaml.YAMLError:
            return False
    return profiles is None or (isinstance(profiles, list) and all(isinstance(item, dict) for item in profiles))


def _present(folder: Path, name: str) -> Path | None:
    """A listed file, which the recorder may have compressed, or somebody decompressed, after it was listed."""
    for place in (name, f"{name}.zstd", name.removesuffix(".zstd")):
        if (folder / place).is_file():
            return folder / place
    return None


def _one_recording(folder: Path) -> list[Path]:
    """The storage files of a folder that does not say which they are."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name.endswith(SUFFIXES))
    stems = {(_numbered(file)[0], _kind(file)) for file in files}
    if not files:
        raise BagError(f"{folder}: no {METADATA} and no file that ends in {', '.join(SUFFIXES)}: this is no recording")
    if len(stems) > 1:
        names = ", ".join(file.name for file in files)
        raise BagError(f"{folder}: without {METADATA} these may be several recordings, name one of them: {names}")
    return files


def _add_later_files(folder: Path, found: Found) -> None:
    """Take files that go on with the numbers of the listed ones: the recorder died before it listed them."""
    listed = {_numbered(file)[0]: _numbered(file)[1] for file in found.files}
    for file in sorted(folder.iterdir()):
        if file in found.files or not file.is_file() or not file.name.endswith(SUFFIXES):
            continue
        stem, number = _numbered(file)
        if (
            number > max((_numbered(f)[1] for f in found.files if _numbered(f)[0] == stem), default=-1)
            and stem in listed
        ):
            found.notes.append(f"{file.name} is read with it, although {METADATA} does not list it")
            found.files.append(file)
        else:
            found.notes.append(f"{file.name} is not read: {METADATA} does not list it")


def _numbered(file: Path) -> tuple[str, int]:
    """Stem and number of a split file: "run_2.mcap" is (run, 2); -1 without a number."""
    match = _NUMBERED.match(file.name)
    if match is None:
        return file.name, -1
    return match["stem"], int(match["number"] or -1)


def _kind(file: Path) -> str:
    return "".join(file.suffixes[-2:]).replace(".zstd", "")[-5:]


def _unpacked(path: Path, folder: Path) -> Path:
    """A copy of a file that was compressed as a whole; of one that was cut off, what comes before the cut."""
    target = folder / path.name.removesuffix(".zstd")
    try:
        with path.open("rb") as packed, target.open("wb") as copy:
            zstandard.ZstdDecompressor().copy_stream(packed, copy)
    except zstandard.ZstdError as error:
        raise StorageError(f"zstd: {error}") from None
    return target
