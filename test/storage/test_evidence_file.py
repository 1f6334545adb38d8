"""Evidence with damaged pages is found at the start: what can be read is saved, and what was lost is told."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest

from salmonn_node.memory.evidence_index import EvidenceIndex
from salmonn_node.storage import evidence_file
from salmonn_node.storage.directory import Lock, MemoryPlace
from salmonn_node.storage.evidence_file import open_evidence
from salmonn_node.storage.export import export_memory
from salmonn_node.storage.files import FileLayer
from salmonn_node.stream.moment import Moment
from salmonn_node.stream.observations import SECOND_NS, Interval, Pose

PAGE = 4096
COUNT = 200


def picture(number: int) -> bytes:
    """Bytes that begin and end as a JPEG does."""
    return b"\xff\xd8" + bytes([number % 256]) * PAGE + b"\xff\xd9"


@pytest.fixture
def place(tmp_path: Path) -> MemoryPlace:
    """A memory of which only the evidence matters: poses and moments with pictures of a page each."""
    place = MemoryPlace(tmp_path, "m")
    place.create(FileLayer())
    index, notes = open_evidence(place, {})
    assert notes == []
    for k in range(COUNT):
        pose = Pose((k + 1) * SECOND_NS, "map", np.array([float(k), 0.0, 0.0]), np.array([0.0, 0.0, 0.0, 1.0]))
        interval = Interval((k + 1) * SECOND_NS, (k + 1) * SECOND_NS)
        index.add(Moment("vision", k, k + 1, interval, "front", "optical", index.add_pose(pose), picture(k)))
    index.close()
    return place


def spoil(path: Path, page: int) -> None:
    with path.open("r+b") as file:
        file.seek(page * PAGE)
        file.write(b"\xa5" * PAGE)


def test_whole_evidence_is_opened_as_it_is(place: MemoryPlace) -> None:
    index, notes = open_evidence(place, {})
    assert (notes, index.damage(), index.sizes()["moments"]) == ([], "", COUNT)
    index.close()
    assert not list(place.directory.glob("evidence.damaged-*"))


def test_rows_on_whole_pages_are_saved_and_the_loss_is_told(place: MemoryPlace) -> None:
    damage = [page for page in range(20, 400, 20) if (page + 1) * PAGE < place.evidence.stat().st_size]
    for page in damage:
        spoil(place.evidence, page)
    index, notes = open_evidence(place, {"max_moments": 10_000})
    (note,) = notes
    assert "evidence database is damaged" in note
    assert "could not be read" in note
    (aside,) = place.directory.glob("evidence.damaged-*.db")
    assert aside.name in note
    kept = index.between()
    assert COUNT // 2 < len([moment for moment in kept if moment.thumbnail]) < COUNT
    for moment in kept:  # what is there is right: its own picture, its own pose
        assert moment.thumbnail in (b"", picture(moment.token_start))
        pose = index.pose(moment.pose_id)
        assert pose is None or pose.position[0] == moment.token_start
    assert index.add_pose(Pose(10**12, "map", np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]))) >= COUNT - 1
    index.close()
    index, notes = open_evidence(place, {})
    assert notes == []
    assert len(index.between()) == len(kept)
    index.close()


def test_what_is_no_database_is_set_aside(place: MemoryPlace) -> None:
    place.evidence.write_bytes(b"not a database" * 1000)
    index, notes = open_evidence(place, {})
    assert "a new one was begun" in notes[0]
    assert index.sizes()["moments"] == 0
    index.close()


def test_a_large_database_is_not_read_through(place: MemoryPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_file, "CHECKED_BYTES", PAGE)
    monkeypatch.setattr(EvidenceIndex, "damage", lambda self: pytest.fail("every page was read"))
    open_evidence(place, {})[0].close()


def test_a_page_that_is_damaged_while_the_node_runs_is_told(place: MemoryPlace) -> None:
    index, _ = open_evidence(place, {})
    for page in range(2, place.evidence.stat().st_size // PAGE):
        spoil(place.evidence, page)
    index._db.execute("PRAGMA shrink_memory")  # the pages that it has read already are forgotten
    index.add(Moment("vision", COUNT, COUNT + 1, Interval(1, 1), "front"))
    assert "malformed" in index.problem
    assert index.failed == 1


def test_an_export_writes_nothing_beside_the_memory(place: MemoryPlace) -> None:
    """From a disk that this user may read but not write, and without a lock file there."""
    root = Path(tempfile.mkdtemp())  # pytest's own folders are closed to other users
    try:
        shutil.copytree(place.directory, root / "disk" / "m")
        (root / "out").mkdir()
        os.chmod(root / "out", 0o777)
        os.chmod(root, 0o755)
        for path in [root / "disk", *(root / "disk").rglob("*")]:
            os.chmod(path, 0o555 if path.is_dir() else 0o444)
        before = _listing(root / "disk")
        with _ordinary_user():
            with pytest.raises(PermissionError):
                (root / "disk" / "m" / "probe").touch()
            export_memory(MemoryPlace(root / "disk", "m"), root / "out" / "m.tar")
        assert _listing(root / "disk") == before
        with tarfile.open(root / "out" / "m.tar") as tar:
            assert "m/evidence.db" in tar.getnames()
    finally:
        for path in root.rglob("*"):
            if path.is_dir():
                os.chmod(path, 0o700)
        shutil.rmtree(root)


class _ordinary_user:
    """Root may write everywhere, so root becomes nobody for a while."""

    def __enter__(self) -> None:
        self._root = os.geteuid() == 0
        if self._root:
            os.seteuid(65534)

    def __exit__(self, *_: object) -> None:
        if self._root:
            os.seteuid(0)


def _listing(folder: Path) -> list[tuple[str, int, int]]:
    return sorted((str(p.relative_to(folder)), p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*"))


def test_a_lock_that_root_makes_belongs_to_the_owner_of_the_memory(
    place: MemoryPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[int, int]] = []
    if os.geteuid() == 0:
        os.chown(place.directory, 12345, 12346)
        Lock(place).release()
        lock = (place.directory / "lock").stat()
        given.append((lock.st_uid, lock.st_gid))
        assert given == [(12345, 12346)]
    else:  # only root can give files away: see that it would
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(os, "fchown", lambda file, user, group: given.append((user, group)))
        Lock(place).release()
        assert given == [(place.directory.stat().st_uid, place.directory.stat().st_gid)]
