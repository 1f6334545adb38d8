"""Durability seen from outside: which system calls one cycle of the store makes, and in which order.

The other tests replace the layer that holds the only real fsync. Here the real layer runs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from storage.robot import Robot

from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.storage.files import FileLayer

Call = tuple[str, str]  # (call, path), or ("rename", "old -> new")


@pytest.fixture(scope="module")
def model() -> VideoSalmonnS:
    return VideoSalmonnS.tiny()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Call]:
    """The calls of os.fsync and os.rename, which are made all the same; paths are those below tmp_path."""
    made: list[Call] = []
    fsync, rename = os.fsync, os.rename

    def counted_fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)
        made.append(("fsync", _below(path, tmp_path)))

    def counted_rename(old: Path, new: Path) -> None:
        rename(old, new)
        made.append(("rename", f"{_below(Path(old), tmp_path)} -> {_below(Path(new), tmp_path)}"))

    monkeypatch.setattr(os, "fsync", counted_fsync)
    monkeypatch.setattr(os, "rename", counted_rename)
    return made


def _below(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path != root else "."


def test_a_file_and_a_directory_are_flushed_by_one_fsync_each(calls: list[Call], tmp_path: Path) -> None:
    layer = FileLayer()
    layer.write(tmp_path / "file", lambda path: path.write_bytes(b"x"))
    layer.sync(tmp_path / "file")
    layer.make_directory(tmp_path / "folder")
    layer.sync_directory(tmp_path)
    assert calls == [("fsync", "file"), ("fsync", ".")]


def test_a_snapshot_is_whole_on_disk_before_it_has_its_name(calls: list[Call], tmp_path: Path, model) -> None:
    robot = Robot(tmp_path, model)
    robot.observe(0, 6)
    calls.clear()
    assert robot.persistence.save()
    robot.persistence.close()
    robot.observer.close()
    check_snapshot(calls, "m/snapshots", 1)
    # The journal that the snapshot continues is flushed before, so that an older snapshot can be used as well.
    assert calls.index(("fsync", "m/journal/00000001.log")) < calls.index(("fsync", "m/journal"))
    assert calls.index(("fsync", "m/journal")) < calls.index(_named("m/snapshots", 1))


def test_what_is_journaled_is_flushed_and_so_is_its_name(calls: list[Call], tmp_path: Path, model) -> None:
    robot = Robot(tmp_path, model, sync_period_s=0.05)
    robot.observe(0, 2)
    robot.store._journal.sync()
    assert ("fsync", "m/journal/00000001.log") in calls
    assert ("fsync", "m/journal") in calls
    robot.persistence.close()
    robot.observer.close()
    for made in ("m", "m/snapshots", "m/journal"):  # each new folder's name is flushed in the folder above it
        assert ("fsync", str(Path(made).parent)) in calls


def check_snapshot(calls: list[Call], folder: str, number: int) -> None:
    """Check that all files and the directory are flushed before the rename, and the name after it."""
    named = calls.index(_named(folder, number))
    building = f"{folder}/.building-{number:08d}"
    before = [path for call, path in calls[:named] if call in ("fsync", "fdatasync")]
    for file in ("state.safetensors", "manifest.json"):
        assert f"{building}/{file}" in before
    assert before[-1] == building  # the directory last: its entries are those of whole files
    assert ("fsync", folder) in calls[named + 1 :]


def _named(folder: str, number: int) -> Call:
    return "rename", f"{folder}/.building-{number:08d} -> {folder}/{number:08d}"


CYCLE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from storage.robot import Robot
robot = Robot(Path(sys.argv[1]), VideoSalmonnS.tiny())
robot.observe(0, 6)
assert robot.persistence.save()
robot.persistence.close()
robot.observer.close()
"""


@pytest.mark.full
def test_the_kernel_sees_the_same(tmp_path: Path) -> None:
    """Under strace: the calls that really reach the kernel, SQLite's included."""
    assert shutil.which("strace"), "this test needs strace: apt-get install strace"
    root, trace = tmp_path / "memories", tmp_path / "trace"
    root.mkdir()
    wanted = "trace=fsync,fdatasync,rename,renameat,renameat2"
    command = ["strace", "-f", "-y", "-e", wanted, "-e", "signal=none", "-o", str(trace)]
    command += [sys.executable, "-c", CYCLE, str(root), str(Path(__file__).parents[1])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SALMONN_TEST_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, timeout=240)
    calls = list(_read_trace(trace.read_text(), root))
    check_snapshot(calls, "m/snapshots", 1)
    flushed = {path for call, path in calls if call in ("fsync", "fdatasync")}
    assert {"m/journal/00000001.log", "m/journal", "m", "."} <= flushed
    assert flushed & {"m/evidence.db", "m/evidence.db-wal"}
    print(f"\n{len(calls)} calls:", *(f"{call} {path}" for call, path in calls), sep="\n  ")


def _read_trace(text: str, root: Path):
    for line in text.splitlines():
        if found := re.search(r"\b(fsync|fdatasync)\(\d+<([^>]*)>\)\s*= 0", line):
            call, path = found[1], Path(found[2])
            if path.is_relative_to(root):
                yield call, _below(path, root)
        elif found := re.search(r'\brename\w*\((?:[^"]*)"([^"]*)"(?:[^"]*)"([^"]*)"[^)]*\)\s*= 0', line):
            old, new = Path(found[1]), Path(found[2])
            if old.is_relative_to(root):
                yield "rename", f"{_below(old, root)} -> {_below(new, root)}"
