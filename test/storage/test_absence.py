"""A memory is never emptied by accident: what is missing is not new, and a failed start lets go of the lock."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import pytest
from storage.robot import Robot

from salmonn_node.cli import main
from salmonn_node.commands import memory as memory_command
from salmonn_node.memory.evidence_index import EvidenceIndex
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.storage.directory import Lock, LockedError, MemoryPlace, in_use
from salmonn_node.storage.export import export_memory
from salmonn_node.storage.journal import decode_record
from salmonn_node.storage.snapshot import DamagedError


@pytest.fixture(scope="module")
def model() -> VideoSalmonnS:
    return VideoSalmonnS.tiny(seed=1)


@pytest.fixture
def stored(tmp_path: Path, model: VideoSalmonnS) -> Path:
    """A directory with memory m: a snapshot, and a journal after it."""
    robot = Robot(tmp_path / "memories", model)
    robot.observe(0, 10)
    assert robot.persistence.save()
    robot.observe(10, 12)
    robot.die()
    return tmp_path / "memories"


@pytest.mark.parametrize("gone", ["snapshots", "snapshots/00000001"])
def test_a_memory_without_its_snapshots_is_refused_and_stays(stored: Path, model: VideoSalmonnS, gone: str):
    shutil.rmtree(stored / "m" / gone)
    moments = EvidenceIndex(stored / "m" / "evidence.db").sizes()["moments"]
    assert moments > 0
    with pytest.raises(
        DamagedError, match=r"journal segments and .* moments of evidence; nothing was deleted.*set-aside"
    ):
        Robot(stored, model)
    assert EvidenceIndex(stored / "m" / "evidence.db").sizes()["moments"] == moments
    assert MemoryPlace(stored, "m").segments()
    assert main(["memory", "--directory", str(stored), "set-aside", "m"]) == 0
    Robot(stored, model).die()
    assert len([path for path in stored.iterdir() if path.name.startswith("m-aside-")]) == 1


@pytest.mark.parametrize("gone", ["journal", "journal/00000002.log", "evidence.db"])
def test_what_is_missing_beside_a_snapshot_is_told(
    stored: Path, model: VideoSalmonnS, gone: str, capsys: pytest.CaptureFixture[str]
):
    verify = ["memory", "--directory", str(stored), "verify", "m"]
    assert main(verify) == 0
    path = stored / "m" / gone
    assert path.exists()
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    for rest in ("-wal", "-shm"):
        (stored / "m" / f"{gone}{rest}").unlink(missing_ok=True)
    capsys.readouterr()
    assert main(verify) == 1
    named = "evidence.db lacks moments of vision" if gone == "evidence.db" else "00000002.log, which follows"
    assert named in " ".join(capsys.readouterr().out.split())
    robot = Robot(stored, model)
    assert named in " ".join(robot.report.damage)
    assert robot.report.snapshot == 1
    assert robot.persistence.save()
    robot.die()
    assert main(verify) == 0, "the next snapshot knows of no loss"
    assert Robot(stored, model).report.damage == []


def test_a_write_ahead_log_that_lost_its_end_is_told(
    tmp_path: Path, model: VideoSalmonnS, capsys: pytest.CaptureFixture[str]
):
    """What is left of the log makes older pages of the database valid again."""
    robot = Robot(tmp_path / "running", model)
    robot.observe(0, 10)
    assert robot.persistence.save()
    shutil.copytree(tmp_path / "running", tmp_path / "copied")  # as it lies there when the power fails
    robot.die()
    log = tmp_path / "copied" / "m" / "evidence.db-wal"
    log.write_bytes(log.read_bytes()[: log.stat().st_size // 4])
    assert main(["memory", "--directory", str(tmp_path / "copied"), "verify"]) == 1
    assert "evidence.db lacks moments" in " ".join(capsys.readouterr().out.split())
    robot = Robot(tmp_path / "copied", model)
    assert robot.report.damage
    robot.die()


def test_a_copy_under_another_name_lacks_nothing(stored: Path, model: VideoSalmonnS):
    robot = Robot(stored, model)
    robot.persistence.save_as("copy")
    robot.die()
    assert main(["memory", "--directory", str(stored), "verify", "copy"]) == 0


def test_a_memory_without_its_last_snapshot_does_not_pass(stored: Path, capsys: pytest.CaptureFixture[str]):
    shutil.rmtree(stored / "m" / "snapshots" / "00000001")
    assert main(["memory", "--directory", str(stored), "verify"]) == 1
    assert "no snapshot is left" in capsys.readouterr().out


def test_values_nested_too_deep_are_damage(stored: Path, capsys: pytest.CaptureFixture[str]):
    (stored / "m" / "snapshots" / "00000001" / "manifest.json").write_text("[" * 100_000)
    assert main(["memory", "--directory", str(stored), "verify"]) == 1
    assert main(["memory", "--directory", str(stored), "ls"]) == 0
    assert main(["memory", "--directory", str(stored), "info", "m"]) == 1
    assert "cannot be read: maximum recursion depth" in " ".join(capsys.readouterr().out.split())
    text = b"[" * 100_000
    with pytest.raises(ValueError, match="recursion"):
        decode_record(len(text).to_bytes(4, "little") + text)


def test_a_lock_that_cannot_be_written_is_a_lock_all_the_same(stored: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    place = MemoryPlace(stored, "m")
    monkeypatch.setattr(os, "pwrite", full)
    lock = Lock(place)
    assert in_use(place)
    with pytest.raises(LockedError):
        Lock(place)
    lock.release()
    assert not in_use(place)


def test_a_start_that_fails_lets_go_of_the_memory(stored: Path, model: VideoSalmonnS, monkeypatch: pytest.MonkeyPatch):
    import sqlite3

    def full(self: EvidenceIndex) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    robot = Robot(stored, model)
    monkeypatch.setattr(EvidenceIndex, "_wipe_wal", full)
    robot.observer.close()
    robot.persistence.close()
    assert "disk is full" in robot.store.problem
    monkeypatch.undo()
    Robot(stored, model).die()


def test_looking_leaves_no_trace(stored: Path, capsys: pytest.CaptureFixture[str]):
    (stored / "m" / "lock").unlink()
    before = sorted(path.relative_to(stored) for path in stored.rglob("*"))
    assert main(["memory", "--directory", str(stored), "ls"]) == 0
    assert main(["memory", "--directory", str(stored), "verify"]) == 0
    assert "evidence.db, whole" in capsys.readouterr().out
    after = sorted(path.relative_to(stored) for path in stored.rglob("*"))
    assert [path for path in after if "-wal" not in path.name and "-shm" not in path.name] == [
        path for path in before if "-wal" not in path.name and "-shm" not in path.name
    ]


def test_an_unpacked_export_is_its_owners_alone(stored: Path, tmp_path: Path):
    export_memory(MemoryPlace(stored, "m"), tmp_path / "m.tar")
    before = os.umask(0o022)
    try:
        with tarfile.open(tmp_path / "m.tar") as archive:
            archive.extractall(tmp_path / "out")
    finally:
        os.umask(before)
    modes = {oct(path.stat().st_mode & 0o077) for path in (tmp_path / "out" / "m").rglob("*")}
    assert modes | {oct((tmp_path / "out" / "m").stat().st_mode & 0o077)} == {"0o0"}


def test_a_wrong_directory_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for action in (["ls"], ["verify"], ["gc"]):
        assert main(["memory", "--directory", str(tmp_path / "nowhere"), *action]) == 2
        assert "nowhere is no directory" in capsys.readouterr().err
    assert main(["memory", "--directory", str(tmp_path), "verify"]) == 2
    assert "nothing was checked" in capsys.readouterr().err


def test_damaged_evidence_is_found(stored: Path, capsys: pytest.CaptureFixture[str]):
    path = stored / "m" / "evidence.db"
    EvidenceIndex(path).close()
    with path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 4096)
    assert main(["memory", "--directory", str(stored), "verify"]) == 1
    assert "evidence.db, damaged" in capsys.readouterr().out


def test_without_a_home_the_parameter_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert main(["memory", "ls"]) == 2
    error = capsys.readouterr().err
    assert "memory_directory" in error
    assert "XDG_DATA_HOME" in error


def test_verify_beside_a_node_that_writes_gives_no_false_alarm(
    stored: Path, model: VideoSalmonnS, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    robot = Robot(stored, model)
    robot.observe(12, 14)
    segments = MemoryPlace(stored, "m").segments()
    newest = segments[-1][1]
    with newest.open("ab") as file:
        file.write(b"\x10\x00")  # the beginning of a record
    assert main(["memory", "--directory", str(stored), "verify"]) == 0
    read = memory_command.read_manifest

    def vanish(path: Path) -> object:
        shutil.rmtree(path)
        return read(path)

    monkeypatch.setattr(memory_command, "read_manifest", vanish)
    assert main(["memory", "--directory", str(stored), "verify"]) == 0
    robot.die()
    monkeypatch.undo()
    assert main(["memory", "--directory", str(stored), "verify"]) == 1, "when nobody writes, a torn record is damage"
    assert "damaged" in capsys.readouterr().out


def test_a_flipped_bit_is_told_as_a_loss_and_a_torn_record_is_not(stored: Path, model: VideoSalmonnS):
    newest = MemoryPlace(stored, "m").segments()[-1][1]
    whole = newest.read_bytes()
    newest.write_bytes(whole[:-3])
    robot = Robot(stored, model)
    assert "cut short" in robot.report.notes[0]
    assert robot.report.damage == []
    robot.die()
    newest.write_bytes(whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :])
    robot = Robot(stored, model)
    assert "fails its checksum" in robot.report.damage[0]
    robot.die()
