"""The wheel in an empty environment: no repository, no ROS, and the demo's bag is replayed, asked and scored."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
pytestmark = pytest.mark.full


class Installed:
    """An environment of its own, used from an empty folder and an empty home."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "venv" / "bin"
        for name in ("home", "work"):
            (folder / name).mkdir()
        venv.create(folder / "venv", with_pip=True)

    def pip(self, *arguments: str | Path) -> bool:
        command = [self.bin / "python", "-m", "pip", "install", "-qq", "--no-compile", *arguments]
        return subprocess.run(command, timeout=3000, check=False).returncode == 0

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        left_out = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
        environment = {key: value for key, value in os.environ.items() if key not in left_out}
        environment |= {"HOME": str(self.folder / "home"), "OMP_NUM_THREADS": "1"}
        work = self.folder / "work"
        return subprocess.run(
            [self.bin / arguments[0], *arguments[1:]],
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    # From the source archive, as `python -m build` does: what the archive lacks, the wheel lacks too.
    build = [sys.executable, "-m", "build", "--outdir", folder / "dist", ROOT]
    subprocess.run(build, check=True, timeout=1200, capture_output=True)
    wheel = next((folder / "dist").glob("*.whl"))
    installed = Installed(folder)
    same = f"torch=={torch.__version__}"
    if not installed.pip("--no-deps", same):
        assert installed.pip("--no-deps", "--index-url", CPU_INDEX, same)
    assert installed.pip(wheel)
    return installed


@pytest.fixture(scope="module")
def demo(installed: Installed) -> Path:
    """The folder of the demo's recording and questions within the wheel."""
    code = "from salmonn_node.live.demo_recording import FOLDER; print(FOLDER)"
    folder = Path(installed.run("python", "-c", code).stdout.strip())
    assert installed.folder in folder.parents
    return folder


def test_it_is_the_wheel_without_ros(installed: Installed):
    where = installed.run("python", "-c", "import salmonn_node; print(salmonn_node.__file__)").stdout

    assert str(installed.folder) in where
    assert installed.run("python", "-c", "import rclpy").returncode == 1


def test_replay_scores_the_demo(installed: Installed, demo: Path):
    done = installed.run(
        "salmonn", "replay", demo / "bag", "--questions", demo / "questions.jsonl", "--output", "scored"
    )

    assert done.returncode == 0, done.stdout + done.stderr
    scores = json.loads((installed.folder / "work/scored/scores.json").read_text(encoding="utf-8"))
    assert scores


def test_ask_answers_with_evidence(installed: Installed, demo: Path):
    done = installed.run("salmonn", "ask", "--bag", demo / "bag", "Have you seen a blue cross?")

    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert re.search(r"outcome +(ANSWERED|NOT_OBSERVED)", done.stdout)


@pytest.mark.parametrize("command", ["plan", "doctor"])
def test_it_looks_at_the_machine(installed: Installed, command: str):
    done = installed.run("salmonn", command)

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_demo_needs_no_repository(installed: Installed):
    done = installed.run("salmonn", "demo", "--offline")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 of 12" in done.stdout
