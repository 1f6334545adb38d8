"""The demo that kills its node half way, as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.full
@pytest.mark.ros
@pytest.mark.timeout(400)
def test_the_successor_answers_about_what_the_killed_node_saw(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ROS_DOMAIN_ID": str(1 + (os.getpid() + 50) % 100)}
    command = [
        sys.executable,
        "-m",
        "salmonn_node.cli",
        "demo",
        "--kill",
        "--rate",
        "8",
        "--output",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=380)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "questions about what the killed node saw" in done.stdout
