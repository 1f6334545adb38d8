"""Processes killed at random moments under load: what they observed comes back, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def kill(tmp_path: Path, kills: int, seed: int, capsys) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'test'}"}
    done = subprocess.run(
        [sys.executable, "-m", "storage.victim", str(tmp_path), str(kills), str(seed)],
        capture_output=True,
        text=True,
        timeout=3000,
        env=environment,
        cwd=ROOT,
    )
    lines = done.stdout.strip().splitlines()
    assert lines, done.stderr[-3000:]
    result = json.loads(lines[-1])
    with capsys.disabled():
        print(
            f"\nSIGKILLs {result['kills']}, stream lost max {result['loss_max_s']:.2f} s, "
            f"mean {result['loss_mean_s']:.2f} s, mismatches {len(result['mismatches'])}"
        )
    assert result["mismatches"] == [], done.stderr[-3000:]
    assert result["kills"] == kills
    assert result["loss_max_s"] <= 1.0


def test_ten_kills(tmp_path: Path, capsys):
    kill(tmp_path, 10, 0, capsys)


@pytest.mark.full
@pytest.mark.timeout(3000)
def test_two_hundred_kills(tmp_path: Path, capsys):
    kill(tmp_path, 200, 1, capsys)
