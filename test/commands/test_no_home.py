"""Users without a home directory (containers, service accounts): commands say what to set, and work once it is set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from salmonn_node.live.demo_recording import BAG

# The user of the tests has a password entry, so Python is told that there is none.
NOBODY = """
import pwd

def getpwuid(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")

pwd.getpwuid = getpwuid
"""


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    (folder / "sitecustomize.py").write_text(NOBODY)
    removed = ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "HF_HOME", "HF_HUB_CACHE")
    environment = {name: value for name, value in os.environ.items() if name not in removed} | variables
    path = os.pathsep.join([str(folder), str(Path(__file__).parents[2])])
    command = [sys.executable, "-m", "salmonn_node.cli", *arguments]
    return subprocess.run(
        command, env={**environment, "PYTHONPATH": path}, capture_output=True, text=True, cwd=folder, check=False
    )


def test_commands_name_what_to_set_and_it_suffices(tmp_path: Path) -> None:
    ask = ("ask", "--bag", str(BAG), "--playback-duration", "2", "Did you see a light room?")
    for arguments in (("plan",), ask):
        done = run(tmp_path, *arguments)
        assert done.returncode == 2, done.stderr
        assert "no home directory" in done.stderr
        assert "XDG_" in done.stderr
        assert "Traceback" not in done.stderr
    done = run(tmp_path, *ask, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert "frames" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "cache").rglob("*.safetensors"))
