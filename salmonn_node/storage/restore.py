"""Restore a memory from disk: choose the snapshot, read the journal that follows it, and report what was lost."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from salmonn_node.storage.directory import MemoryPlace
from salmonn_node.storage.journal import EmptySegmentError, JournalReader, Record
from salmonn_node.storage.snapshot import (
    DamagedError,
    Identity,
    IncompatibleError,
    Manifest,
    SnapshotError,
    read_manifest,
    read_tensors,
    snapshot_directories,
    verify_files,
)

ROOT = (0, 0)  # what the first segment of a memory continues


@dataclass
class RestoreReport:
    """Result of a restore.

    Attributes:
        snapshot: number of the snapshot that was loaded, None for none.
        records: number of journal records that were replayed.
        notes: what a user should know, in plain words: damage, fallbacks, another machine.
        damage: the notes that report a loss.
        duration_s: duration of the restore, seconds.
    """

    snapshot: int | None = None
    records: int = 0
    notes: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    duration_s: float = 0.0

    def lose(self, text: str) -> None:
        """Note a loss."""
        self.notes.append(text)
        self.damage.append(text)


class Restorer:
    """Finds the state of a memory on disk. It writes nothing.

    Args:
        place: the memory.
        identity: checkpoint and configuration with which the memory must have been made.
        moments: number of moments in the evidence database.
        lacked_snapshots: whether the memory's directory existed without its folder of snapshots.
        notes: losses that were noted before.

    Attributes:
        report: what was found.
        damaged: numbers of the damaged snapshots.
        position: (segment, records) at which the journal ends; set by `follow`.
    """

    def __init__(
        self, place: MemoryPlace, identity: Identity, *, moments: int, lacked_snapshots: bool, notes: list[str]
    ) -> None:
        self.place, self.identity = place, identity
        self.report = RestoreReport(notes=[*notes], damage=[*notes])
        self.damaged: set[int] = set()
        self.position = ROOT
        self._moments, self._lacked_snapshots = moments, lacked_snapshots

    def choose(self, number: int | None) -> tuple[Manifest | None, dict[str, Tensor]]:
        """Choose the newest whole snapshot, or snapshot `number`, and read its tensors; None for a new memory.

        Raises:
            IncompatibleError: the snapshot belongs to another checkpoint, another configuration or a newer schema.
            DamagedError: no whole snapshot is left.
        """
        found = [(n, p) for n, p in snapshot_directories(self.place.snapshots) if number is None or n == number]
        if number is not None and not found:
            raise DamagedError(f"memory {self.place.name!r} has no snapshot {number}")
        for n, path in found:
            try:
                manifest = read_manifest(path)
                self.identity.check(manifest.identity, f"snapshot {path.name} of memory {self.place.name!r}")
                verify_files(path, manifest)
                return manifest, read_tensors(path)
            except DamagedError as error:
                self.damaged.add(n)
                self.report.lose(str(error))
            except IncompatibleError as error:
                offered = [str(older) for older, where in found if older < n and fits(where, self.identity)]
                offer = f"older snapshots that fit: {', '.join(offered)}" if offered else "no older snapshot fits"
                raise IncompatibleError(f"{error}; {offer}; nothing was deleted") from error
        self._refuse_remains(bool(found))
        return None, {}

    def _refuse_remains(self, damaged: bool) -> None:
        """Raise DamagedError when a memory without a whole snapshot is not a new one but has lost its snapshots."""
        segments = self.place.segments()
        if begins_with_journal(self.place):
            return
        journals = sum(not _is_empty(path) for _, path in segments)
        if damaged:
            found = f"has no whole snapshot left: {'; '.join(self.report.notes)}"
        elif journals or (self._lacked_snapshots and self._moments):
            found = f"has no snapshot in {self.place.snapshots}, but {journals} journal segments"
            found += f" and {self._moments} moments of evidence"
        else:
            return  # a power cut right after the first start leaves evidence without a journal
        raise DamagedError(
            f"memory {self.place.name!r} {found}; nothing was deleted. Put snapshots/ back from a backup, or "
            f"start anew after `salmonn memory --directory {self.place.root} set-aside {self.place.name}`"
        )

    def follow(self, segment: int) -> Iterator[Record]:
        """Yield the records from `segment` on. Each segment names the one it continues, and after how many records."""
        segments = dict(self.place.segments())
        position, number = ROOT, segment
        while True:
            if number:
                position = (number, 0)
                if number in segments:
                    position = (number, (yield from self._read_segment(segments[number])))
            nexts = [n for n, path in segments.items() if n > position[0] and _continues(path) == position]
            if not nexts:
                break
            number = max(nexts)
        unused = [path.name for n, path in segments.items() if n > position[0] and not _is_empty(path)]
        if unused:
            self.report.lose(f"journal segments {', '.join(unused)} follow a gap and were not used")
        self.position = position

    def _read_segment(self, path: Path) -> Generator[Record, None, int]:
        try:
            reader = JournalReader(path)
        except EmptySegmentError:
            return 0
        except ValueError as error:
            self.report.lose(str(error))
            return 0
        self.identity.check(reader.header["identity"], f"journal {path.name} of memory {self.place.name!r}")
        yield from reader
        if reader.damage:
            # A record that is cut short was being written when the process or the power died, so it is no damage.
            tell = self.report.notes.append if reader.damage.endswith("is cut short") else self.report.lose
            tell(f"journal {reader.damage}; the {reader.records} records before it were used")
        return reader.records


def fits(path: Path, identity: Identity) -> bool:
    """Whether a snapshot is whole and was made with this identity."""
    try:
        manifest = read_manifest(path)
        identity.check(manifest.identity, path.name)
        verify_files(path, manifest)
    except SnapshotError:
        return False
    return True


def begins_with_journal(place: MemoryPlace) -> bool:
    """Whether a memory's journal is complete from the beginning, so that it needs no snapshot."""
    return any(_continues(path) == ROOT for _, path in place.segments())


def _continues(path: Path) -> tuple[int, int] | None:
    """The (segment, records) that a segment continues, from its header; None when the header does not say."""
    try:
        segment, records = JournalReader(path).header["continues"]
    except (ValueError, KeyError, TypeError, OSError):
        return None
    return segment, records


def _is_empty(path: Path) -> bool:
    """Whether a segment holds no record."""
    try:
        return JournalReader(path).bytes >= path.stat().st_size
    except EmptySegmentError:
        return True
    except ValueError:
        return False
