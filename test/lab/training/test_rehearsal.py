"""`salmonn train tiny` as one command, from rendering to a checkpoint that answers, on little data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from salmonn_node.model.checkpoint import load


@pytest.mark.full
@pytest.mark.timeout(2400)
def test_the_recipe_runs_from_start_to_end(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "salmonn_node.cli", "train", "tiny", "--rehearsal", "--work", str(tmp_path)]
    first = subprocess.run([*command, "--out", str(tmp_path / "made")], capture_output=True, text=True, timeout=1800)
    assert first.returncode == 0, first.stderr
    model = load(str(tmp_path / "made"))
    assert not model.checkpoint.trained, "a rehearsal's weights must not pass for trained ones"
    again = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert again.returncode == 0, again.stderr
    assert "step" not in again.stdout, "a stage that is done is not done again"
