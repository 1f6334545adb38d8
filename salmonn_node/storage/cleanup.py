"""What is deleted from a memory's folder: what exceeds its bounds, and everything that holds a forgotten interval."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from salmonn_node.memory.evidence_index import EvidenceIndex
from salmonn_node.storage.directory import MemoryPlace, describe
from salmonn_node.storage.files import FileLayer
from salmonn_node.storage.snapshot import Manifest, SnapshotError, read_manifest, snapshot_directories


class Cleanup:
    """Deletes snapshots and journal segments of one memory.

    Args:
        place: the paths of the memory.
        files: file operations.
        keep: number of snapshots to keep, each with the journal that follows it.
        max_bytes: bound on disk use.
    """

    def __init__(self, place: MemoryPlace, files: FileLayer, keep: int, max_bytes: int) -> None:
        self.keep, self.max_bytes = keep, max_bytes
        self._place, self._files = place, files

    def shrink(self, evidence: EvidenceIndex, damaged: Set[int]) -> str:
        """Delete what exceeds `keep` and `max_bytes`: first the oldest evidence, then the oldest snapshots.

        Args:
            evidence: the evidence index.
            damaged: numbers of damaged snapshots; they stay, so that a person can look at them.

        Returns:
            Why the bound cannot be kept; "" when it is.
        """
        self.remove_leftovers()
        whole = [m for m in describe(self._place).manifests if m.number not in damaged]
        self._keep_newest(whole[: self.keep], damaged)
        excess = self._place.size_bytes() - self.max_bytes
        if excess > 0:
            evidence.shrink(max(0, evidence.sizes()["thumbnail_bytes"] - excess))
        for count in range(min(self.keep, len(whole)) - 1, 0, -1):
            if self._place.size_bytes() <= self.max_bytes:
                return ""
            self._keep_newest(whole[:count], damaged)
        if self._place.size_bytes() > self.max_bytes:
            return f"one snapshot and its journal exceed max_bytes ({self.max_bytes})"
        return ""

    def _keep_newest(self, manifests: list[Manifest], damaged: Set[int]) -> None:
        oldest = manifests[-1]
        for number, path in snapshot_directories(self._place.snapshots):
            if number < oldest.number and number not in damaged:
                remove_snapshot(self._files, path)
        self._remove_segments_before(oldest.segment)

    def _remove_segments_before(self, segment: int) -> None:
        for number, path in self._place.segments():
            if number < segment:
                self._files.remove(path)

    def remove_leftovers(self) -> None:
        """Delete what an interrupted process left between making or deleting a snapshot."""
        for path in self._place.snapshots.glob(".building-*"):
            self._files.remove(path)

    def erase(self, manifest: Manifest) -> None:
        """Delete everything that may contain the interval that `manifest` forgot, damaged files too."""
        self.remove_leftovers()
        start_ns = manifest.forgotten[-1][0]
        for number, path in snapshot_directories(self._place.snapshots):
            if number >= manifest.number:
                continue
            try:
                before = read_manifest(path).newest_ns < start_ns
            except SnapshotError:
                before = False
            if not before:
                remove_snapshot(self._files, path)
        self._remove_segments_before(manifest.segment)
        for path in self._place.directory.glob("evidence.damaged-*"):
            self._files.remove(path)
        self._files.sync_directory(self._place.snapshots)
        self._files.sync_directory(self._place.journal)


def remove_snapshot(files: FileLayer, path: Path) -> None:
    """Delete a snapshot. It loses its name first, so that no other process finds a half deleted one."""
    removed = path.with_name(f".building-{path.name}-removed")
    files.rename(path, removed)
    files.remove(removed)
