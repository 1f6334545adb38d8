"""A first start where something is missing: no space on the disk, no home. The node lives, and says what to do."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from salmonn_node.client import Memory

from .harness import PATIENCE_S, ROOT, NodeProcess, Robot

pytestmark = pytest.mark.ros


@pytest.fixture(autouse=True)
def no_byte_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11 puts a byte code file in place although the disk was full in its middle; later imports fail on it."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")


# Python asks the password database for a user's home. Here it knows nobody, as in a container with a foreign user id.
NOBODY = """
import pwd
def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
"""


def test_a_disk_that_is_full_at_the_first_start_and_freed(robot: Robot, tmp_path: Path) -> None:
    arguments = {"memory_directory": str(tmp_path / "memories"), "diagnostics_period_s": "0.1", "threads": "1"}
    process = NodeProcess(tmp_path / "node.log", arguments, name="early", scripted=False)
    try:
        memory = Memory(robot.node, "early")
        assert memory.state(PATIENCE_S) == "unconfigured", process.tail()
        hard = resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (4096, hard))
        for _ in range(2):  # again, it must still be the disk, and not its own lock
            with pytest.raises(RuntimeError, match="unconfigured"):
                memory.startup(PATIENCE_S)
            robot.wait(
                lambda: "cannot configure: OSError" in robot.value("node", "message", "early"), PATIENCE_S, "the disk"
            )
            assert "in use" not in robot.value("node", "message", "early")
        resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        memory.startup(PATIENCE_S)
        assert memory.state(PATIENCE_S) == "active"
        robot.wait(lambda: robot.value("memory", "storage", "early") == "on", PATIENCE_S, "the memory is stored")
    finally:
        assert process.end() == 0


def test_without_a_home_the_parameter_is_named_and_suffices(
    robot: Robot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(NOBODY)
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))
    quick = {"diagnostics_period_s": "0.1", "threads": "1"}
    process = NodeProcess(tmp_path / "node.log", quick, name="homeless", scripted=False)
    try:
        memory = Memory(robot.node, "homeless")
        assert memory.state(PATIENCE_S) == "unconfigured", process.tail()
        with pytest.raises(RuntimeError, match="unconfigured"):
            memory.startup(PATIENCE_S)
        robot.wait(lambda: "no home" in robot.value("node", "message", "homeless"), PATIENCE_S, "diagnostics name it")
        told = robot.value("node", "message", "homeless")
        assert "memory_directory" in told
        assert "XDG_DATA_HOME" in told
        assert "Traceback" not in (tmp_path / "node.log").read_text()
    finally:
        assert process.end() == 0
    named = {**quick, "memory_directory": str(tmp_path / "memories")}
    process = NodeProcess(tmp_path / "named.log", named, name="named", scripted=False)
    try:
        memory = Memory(robot.node, "named")
        memory.startup(PATIENCE_S)
        assert memory.state(PATIENCE_S) == "active", process.tail()
        assert (tmp_path / "memories" / "default" / "snapshots").is_dir()
    finally:
        assert process.end() == 0


def test_without_a_folder_for_logs_the_variable_is_named() -> None:
    bare = {key: os.environ[key] for key in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if key in os.environ}
    command = [sys.executable, "-m", "salmonn_node.ros.node"]
    done = subprocess.run(command, cwd=ROOT, env=bare, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 1
    assert "the node cannot start" in done.stderr
    assert "ROS_LOG_DIR" in done.stderr
    assert "Traceback" not in done.stderr
