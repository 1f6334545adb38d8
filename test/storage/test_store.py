"""A memory comes back as it was: after clean ends, crashes anywhere, power cuts, full disks and damaged files."""

from __future__ import annotations

import json
import os
import shutil
import stat
import time
from pathlib import Path

import pytest
from storage.faulty_files import Crash, FaultyFiles
from storage.ledger import IDENTITY, Ledger, observation, observe, reopen, uninterrupted

from salmonn_node.storage.directory import LockedError, MemoryPlace, describe, list_memories
from salmonn_node.storage.snapshot import DamagedError, Identity, IncompatibleError, snapshot_directories
from salmonn_node.storage.store import MemoryStore
from salmonn_node.stream.observations import SECOND_NS, Interval


def crash(store: MemoryStore) -> None:
    """Let go of everything as a killed process does: nothing is flushed."""
    store._lock.release()
    store.evidence._db.close()


def run_cycle(root: Path, files: FaultyFiles) -> tuple[MemoryStore | None, int, int]:
    """Open, observe over three snapshots; returns the store and how many observations were appended, and synced."""
    appended = synced = 0
    store = None
    try:
        store = MemoryStore(root, "m", IDENTITY, keep=2, sync_period_s=0.0, files=files)
        ledger = Ledger(store.evidence)
        store.restore(ledger.load, ledger.take)
        for n in range(16):
            store.append(observation(n))
            appended += 1
            ledger.take(observation(n))
            if n % 3 == 2:
                assert store._journal is not None
                store._journal.sync()
                synced = appended
            if n % 5 == 4:
                store.snapshot(ledger.state())
                synced = appended
        store.close()
        synced = appended
    except Crash:
        pass
    return store, appended, synced


def test_a_crash_at_every_operation_loses_nothing_that_was_journaled(tmp_path: Path, capsys):
    clean = FaultyFiles(tmp_path / "clean")
    (tmp_path / "clean").mkdir()
    run_cycle(tmp_path / "clean", clean)
    total = len(clean.operations)
    assert {"mkdir", "open", "append", "write", "sync", "sync-directory", "rename", "remove"} == {
        name.split()[0] for name in clean.operations
    }
    losses, power_losses, mismatches = [], [], 0
    for at in range(1, total + 1):
        for power in (False, True):
            root = tmp_path / f"{at}-{power}"
            root.mkdir()
            files = FaultyFiles(root, crash_at=at)
            store, appended, synced = run_cycle(root, files)
            if store is not None:
                crash(store)
            if power:
                files.power_cut(seed=at)
            again, ledger, _ = reopen(root, keep=2)
            lost = appended - ledger.count
            # The observation during whose write the process died may be there or not.
            assert -1 <= lost <= (appended + 1 - synced if power else 1), files.operations[-1]
            (power_losses if power else losses).append(max(0, lost))
            mismatches += ledger.print() != uninterrupted(ledger.count).print()
            observe(again, ledger, 6, snapshot_every=4)
            again.close()
            again, ledger, _ = reopen(root)
            mismatches += ledger.print() != uninterrupted(ledger.count).print()
            again.close()
            shutil.rmtree(root)
    with capsys.disabled():
        print(
            f"\ncrashes {total}, observations lost max {max(losses)}, mean {sum(losses) / total:.2f}; "
            f"power cuts {total}, lost max {max(power_losses)}, mean {sum(power_losses) / total:.2f} (synced every 3); "
            f"mismatches {mismatches}"
        )
    assert mismatches == 0


def test_a_full_disk_at_every_operation_never_stops_observing(tmp_path: Path):
    clean = FaultyFiles(tmp_path / "clean")
    (tmp_path / "clean").mkdir()
    run_cycle(tmp_path / "clean", clean)
    for at in range(1, len(clean.operations) + 1):
        root = tmp_path / str(at)
        root.mkdir()
        files = FaultyFiles(root, full_at=at)
        store = MemoryStore(root, "m", IDENTITY, sync_period_s=0.0, files=files)
        ledger = Ledger(store.evidence)
        store.restore(ledger.load, ledger.take)
        observe(store, ledger, 16, snapshot_every=5)
        if any(operation.split()[0] in ("open", "append", "write") for operation in files.operations[at - 1 :]):
            assert "No space left" in store.problem
        assert ledger.print() == uninterrupted(16).print()
        files.full_at = 0
        observe(store, ledger, 4)
        assert store.snapshot(ledger.state())
        assert store.problem == ""
        observe(store, ledger, 3)
        crash(store)
        store, ledger, _ = reopen(root)
        assert ledger.print() == uninterrupted(23).print()
        store.close()
        shutil.rmtree(root)


def test_on_a_full_disk_the_last_whole_state_comes_back(tmp_path: Path):
    files = FaultyFiles(tmp_path)
    store = MemoryStore(tmp_path, "m", IDENTITY, sync_period_s=0.0, files=files)
    ledger = Ledger(store.evidence)
    store.restore(ledger.load, ledger.take)
    observe(store, ledger, 10, snapshot_every=5)
    files.full_at = 1
    observe(store, ledger, 10, snapshot_every=5)
    assert store.due(0) is False or store.problem
    crash(store)
    store, ledger, _ = reopen(tmp_path)
    assert ledger.print() == uninterrupted(10).print()
    store.close()


def test_a_read_only_directory_is_refused_by_name(tmp_path: Path):
    if os.geteuid() == 0:
        blocked = tmp_path / "file"
        blocked.write_text("not a directory")
        with pytest.raises(OSError, match="file"):
            reopen(blocked)
        return
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="Permission"):
        reopen(tmp_path)


def test_directories_are_private_and_names_are_no_paths(tmp_path: Path):
    store, _, _ = reopen(tmp_path / "root")
    for path in (tmp_path / "root", store.place.directory, store.place.snapshots, store.place.journal):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for name in ("", "..", "a/b", "/etc", "a" * 65, "a\n", "é", "a b", ".hidden"):
        with pytest.raises(ValueError, match="memory name"):
            MemoryPlace(tmp_path, name)
        with pytest.raises(ValueError, match="memory name"):
            store.save_as(name, Ledger(store.evidence).state())
    (tmp_path / "root" / "link").symlink_to("/tmp")
    with pytest.raises(ValueError, match="symbolic"):
        MemoryPlace(tmp_path / "root", "link")
    store.close()


def test_two_never_share_a_memory(tmp_path: Path):
    store, ledger, _ = reopen(tmp_path)
    with pytest.raises(LockedError, match=f'"pid": {os.getpid()}'):
        reopen(tmp_path)
    other, _, _ = reopen(tmp_path, "other")
    with pytest.raises(LockedError):
        store.save_as("other", ledger.state(), overwrite=True)
    other.close()
    store.close()
    reopen(tmp_path)[0].close()


@pytest.mark.parametrize("file", ["state.safetensors", "manifest.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "missing", "empty"])
def test_a_damaged_snapshot_is_passed_over_without_loss(tmp_path: Path, file: str, harm: str):
    store, ledger, _ = reopen(tmp_path)
    observe(store, ledger, 23, snapshot_every=5)
    crash(store)
    victim = tmp_path / "m" / "snapshots" / "00000004" / file
    data = victim.read_bytes()
    if harm == "missing":
        victim.unlink()
    else:
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]
        victim.write_bytes({"flip": flipped, "cut": data[:-7], "empty": b""}[harm])
    store, ledger, report = reopen(tmp_path)
    assert report.snapshot == 3
    assert any(file in note for note in report.notes)
    assert ledger.print() == uninterrupted(23).print()
    observe(store, ledger, 20, snapshot_every=5)
    assert (victim.parent).is_dir()  # nothing damaged is deleted
    store.close()
    store, ledger, _ = reopen(tmp_path)
    assert ledger.print() == uninterrupted(43).print()
    store.close()


def test_without_any_whole_snapshot_the_memory_is_refused_and_left_alone(tmp_path: Path):
    store, ledger, _ = reopen(tmp_path, keep=2)
    observe(store, ledger, 23, snapshot_every=5)
    crash(store)
    for _, path in snapshot_directories(tmp_path / "m" / "snapshots"):
        (path / "manifest.json").write_text("{}")
    before = sorted(p.name for p in (tmp_path / "m").rglob("*"))
    with pytest.raises(DamagedError, match="no whole snapshot left"):
        reopen(tmp_path)
    assert sorted(p.name for p in (tmp_path / "m").rglob("*") if "evidence.db-" not in p.name) == [
        name for name in before if "evidence.db-" not in name
    ]


def test_a_damaged_journal_gives_its_good_prefix_and_goes_on_from_there(tmp_path: Path):
    store, ledger, _ = reopen(tmp_path)
    observe(store, ledger, 5, snapshot_every=5)
    observe(store, ledger, 10)
    crash(store)
    segment = store.place.segments()[-1][1]
    data = segment.read_bytes()
    segment.write_bytes(data[: len(data) * 2 // 3] + b"\x00" + data[len(data) * 2 // 3 + 1 :])
    store, ledger, report = reopen(tmp_path)
    assert 5 < ledger.count < 15
    assert any("checksum" in note or "cut short" in note for note in report.notes)
    assert ledger.print() == uninterrupted(ledger.count).print()
    reached = ledger.count
    observe(store, ledger, 4)
    crash(store)
    store, ledger, _ = reopen(tmp_path)
    assert ledger.count == reached + 4
    assert ledger.print() == uninterrupted(reached + 4).print()
    store.close()


def test_what_follows_a_gap_is_not_used(tmp_path: Path):
    store, ledger, _ = reopen(tmp_path)
    observe(store, ledger, 22, snapshot_every=5)
    crash(store)
    shutil.rmtree(tmp_path / "m" / "snapshots" / "00000004")
    segment = dict(store.place.segments())[4]
    segment.write_bytes(segment.read_bytes()[:-3])
    store, ledger, report = reopen(tmp_path)
    assert report.snapshot == 3
    assert ledger.count == 19
    assert any("follow a gap" in note for note in report.notes)
    observe(store, ledger, 3)
    crash(store)
    store, ledger, _ = reopen(tmp_path)
    assert ledger.print() == uninterrupted(22).print()
    store.close()


def test_another_checkpoint_configuration_or_schema_is_refused_by_name(tmp_path: Path):
    store, ledger, _ = reopen(tmp_path)
    observe(store, ledger, 12, snapshot_every=5)
    store.close()
    files = sorted(p for p in (tmp_path / "m").rglob("*"))
    with pytest.raises(IncompatibleError, match="checkpoint 'ledger-1'; this node runs 'ledger-2'"):
        reopen(tmp_path, identity=Identity("ledger-2", "small"))
    with pytest.raises(IncompatibleError, match="config 'small'; this node runs 'large'.*no older snapshot fits"):
        reopen(tmp_path, identity=Identity("ledger-1", "large"))
    assert sorted(p for p in (tmp_path / "m").rglob("*")) == files
    rewrite_manifest(tmp_path / "m" / "snapshots" / "00000002", schema=99)
    with pytest.raises(IncompatibleError, match="schema 99.*older snapshots that fit: 1;.*nothing was deleted"):
        reopen(tmp_path)
    store = MemoryStore(tmp_path, "m", IDENTITY)
    ledger = Ledger(store.evidence)
    report = store.restore(ledger.load, ledger.take, number=1)
    assert report.snapshot == 1
    assert ledger.print() == uninterrupted(12).print()
    store.close()


def rewrite_manifest(directory: Path, schema: int = 1, **changes) -> None:
    from salmonn_node.storage.snapshot import _digest

    body = {**json.loads((directory / "manifest.json").read_text())["body"], **changes}
    (directory / "manifest.json").write_text(
        json.dumps({"schema": schema, "sha256": _digest(schema, body), "body": body})
    )


def test_a_snapshot_of_another_machine_is_used_and_said(tmp_path: Path):
    store, ledger, _ = reopen(tmp_path / "here")
    observe(store, ledger, 7, snapshot_every=5)
    store.close()
    rewrite_manifest(tmp_path / "here" / "m" / "snapshots" / "00000001", machine={"host": "far away"})
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    store, ledger, report = reopen(tmp_path / "there")
    (note,) = report.notes
    assert note.startswith("snapshot 1 was written elsewhere (host far away, here ")
    assert ledger.print() == uninterrupted(7).print()
    store.close()


def test_the_clock_of_the_machine_does_not_matter(tmp_path: Path):
    store, ledger, _ = reopen(tmp_path)
    observe(store, ledger, 12, snapshot_every=5)
    crash(store)
    for n, path in enumerate(sorted((tmp_path / "m").rglob("*"))):
        os.utime(path, (10 * n, 2_000_000_000 - 10 * n))
    store, ledger, _ = reopen(tmp_path)
    assert ledger.print() == uninterrupted(12).print()
    store.close()


def test_a_damaged_evidence_database_is_set_aside(tmp_path: Path):
    store, ledger, _ = reopen(tmp_path)
    observe(store, ledger, 12, snapshot_every=5)
    store.close()
    (tmp_path / "m" / "evidence.db").write_bytes(b"not a database" * 100)
    store, ledger, report = reopen(tmp_path)
    assert any("set aside" in note for note in report.notes)
    assert list((tmp_path / "m").glob("evidence.damaged-*"))
    assert ledger.print()[:3] == uninterrupted(12).print()[:3]
    store.close()


def test_snapshots_beside_ingest_hold_the_state_of_their_moment(tmp_path: Path):
    store, ledger, _ = reopen(tmp_path)
    for _ in range(6):
        observe(store, ledger, 5)
        assert store.snapshot(ledger.state(), beside=True)
    observe(store, ledger, 3)
    store.wait()
    crash(store)
    store, ledger, report = reopen(tmp_path)
    assert report.snapshot == 6
    assert report.records == 3
    assert ledger.print() == uninterrupted(33).print()
    assert [m.number for m in describe(store.place).manifests] == [6, 5, 4]
    store.close()


def test_saving_under_a_name_and_loading(tmp_path: Path):
    store, ledger, _ = reopen(tmp_path)
    observe(store, ledger, 7)
    store.save_as("kitchen", ledger.state())
    with pytest.raises(FileExistsError):
        store.save_as("kitchen", ledger.state())
    observe(store, ledger, 4)
    assert store.save_as("kitchen", ledger.state(), overwrite=True).number == 2
    assert list_memories(tmp_path) == ["kitchen", "m"]
    other, copy, _ = reopen(tmp_path, "kitchen")
    assert copy.print() == ledger.print() == uninterrupted(11).print()
    observe(other, copy, 5, snapshot_every=3)
    other.close()
    other, copy, _ = reopen(tmp_path, "kitchen")
    assert copy.print() == uninterrupted(16).print()
    other.close()
    store.close()


def test_disk_use_is_bounded(tmp_path: Path):
    store, ledger, _ = reopen(tmp_path, max_bytes=1 << 20, keep=3)
    for _ in range(30):
        observe(store, ledger, 20)
        store.snapshot(ledger.state())
        for n in range(20):
            from salmonn_node.stream.moment import Moment

            number = 10_000 + ledger.count * 100 + n
            interval = Interval(ledger.newest_ns, ledger.newest_ns)
            store.evidence.add(Moment("vision", number, number + 1, interval, "front", thumbnail=os.urandom(8000)))
        assert store.place.size_bytes() < 2 << 20
    assert store.snapshot(ledger.state())
    assert store.place.size_bytes() <= 1 << 20
    assert store.problem == ""
    store.close()


def test_a_snapshot_loses_its_name_before_its_files(tmp_path: Path):
    """Another process never finds a half deleted snapshot; what a kill in between leaves is deleted by the next one."""
    (tmp_path / "clean").mkdir()
    clean = FaultyFiles(tmp_path / "clean")
    run_cycle(tmp_path / "clean", clean)
    removed = [op for op in clean.operations if op.startswith("remove m/snapshots/")]
    old = [op for op in removed if op.endswith("-removed")]
    assert old
    assert all(op.startswith("remove m/snapshots/.building-") for op in removed)
    root = tmp_path / "killed"
    root.mkdir()
    store, _, _ = run_cycle(root, FaultyFiles(root, crash_at=clean.operations.index(old[0]) + 1))
    crash(store)
    assert list((root / "m" / "snapshots").glob(".building-*-removed"))
    store, ledger, report = reopen(root)
    assert report.damage == []
    assert store.snapshot(ledger.state())
    assert not list((root / "m" / "snapshots").glob(".building-*"))
    store.close()


def test_a_long_or_failed_journal_makes_a_snapshot_due(tmp_path: Path):
    files = FaultyFiles(tmp_path)
    store = MemoryStore(tmp_path, "m", IDENTITY, max_bytes=1 << 20, sync_period_s=0.0, compress=False, files=files)
    ledger = Ledger(store.evidence)
    store.restore(ledger.load, ledger.take)
    assert not store.due(0)
    assert not store.due(1e9)
    assert store.due(1e-9)
    while ledger.count < 2000 and not store.due(0):
        observe(store, ledger, 10)
    assert 100 < ledger.count < 2000
    store.snapshot(ledger.state())
    assert not store.due(0)
    files.full_at = 1
    observe(store, ledger, 1)
    assert not store.due(0)
    store._last_snapshot = time.monotonic() - 6
    assert store.due(0)
    crash(store)


def test_forgetting_leaves_nothing_of_the_interval_on_disk(tmp_path: Path):
    store, ledger, _ = reopen(tmp_path, compress=False, keep=5)
    observe(store, ledger, 20, snapshot_every=5)
    frame = observation(12)
    needle = frame.image.tobytes()[:64]
    assert any(needle in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    interval = Interval(frame.stamp_ns, frame.stamp_ns + 1)
    before = store.weights_before(interval.start_ns)
    assert before is not None
    assert before[1].number == 2
    store.evidence.forget(interval)
    assert store.snapshot(ledger.state(), forgotten=interval)
    assert not any(needle in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert [m.number for m in describe(store.place).manifests] == [5, 2, 1]
    assert store.weights_before(SECOND_NS) is None
    expected = ledger.print()
    observe(store, ledger, 3)
    expected = ledger.print()
    crash(store)
    store, ledger, _ = reopen(tmp_path)
    assert ledger.print() == expected
    store.close()


def test_a_forget_that_was_interrupted_is_finished_at_the_next_start(tmp_path: Path):
    interval = Interval(observation(12).stamp_ns, observation(12).stamp_ns)
    needle = observation(12).image.tobytes()[:64]
    finished = 0
    for at in range(1, 60):
        root = tmp_path / str(at)
        root.mkdir()
        store, ledger, _ = reopen(root, compress=False, keep=5)
        observe(store, ledger, 20, snapshot_every=5)
        files = FaultyFiles(root, crash_at=at)
        store._files = files
        store.evidence.forget(interval)
        try:
            store.snapshot(ledger.state(), forgotten=interval)
            finished += 1
            files.crash_at = 0
        except Crash:
            crash(store)
            store, ledger, report = reopen(root, compress=False)
            assert ledger.count == 20
            gone = not any(needle in path.read_bytes() for path in root.rglob("*") if path.is_file())
            assert gone == (report.snapshot == 5)
        store.close()
    assert finished > 10
