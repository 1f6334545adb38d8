"""On arm64 there are no ROS wheels: set-up leaves ROS out, says so, and the demo replays its recording offline."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def make(checkout: Path, *arguments: str, machine: str | None = None, tools: Path | None = None) -> str:
    """Output of make, as if `uname -m` printed `machine`."""
    environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "ROS_DISTRO")}
    if machine and tools:
        tools.mkdir()
        (tools / "uname").write_text(f"#!/bin/sh\necho {machine}\n", encoding="utf-8")
        (tools / "uname").chmod(0o755)
        environment["PATH"] = f"{tools}:{environment['PATH']}"
    command = ["make", "--no-print-directory", *arguments]
    done = subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=3400, check=False
    )
    return f"{done.stdout}{done.stderr}\nexit status {done.returncode}"


@pytest.mark.parametrize("machine", ["aarch64", "arm64"])
def test_make_leaves_ros_out_on_arm64(tmp_path: Path, machine: str):
    said = make(ROOT, "-n", f"VENV={tmp_path / 'venv'}", "demo", machine=machine, tools=tmp_path / "tools")

    assert "There are no ROS 2 wheels" in said
    assert "salmonn demo --offline" in said
    assert "./salmonn_interfaces" not in said
    assert "ros" not in said.partition("-e '.[")[2].partition("]'")[0].split(",")


def test_make_installs_ros_on_x86_64(tmp_path: Path):
    said = make(ROOT, "-n", f"VENV={tmp_path / 'venv'}", "demo", machine="x86_64", tools=tmp_path / "tools")

    assert "./salmonn_interfaces" in said
    assert "--offline" not in said


@pytest.mark.full
def test_the_demo_runs_without_ros_wheels(tmp_path: Path):
    checkout = tmp_path / "checkout"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, timeout=60)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, checkout / name)

    said = make(checkout, "ROS_WHEELS=no", "demo")

    assert "installing without ROS" in said
    assert "12 of 12" in said
    assert said.endswith("exit status 0"), said
    without = subprocess.run([checkout / ".venv/bin/python", "-c", "import rclpy"], check=False, timeout=60)
    assert without.returncode == 1
    assert "there are no wheels of it" in make(checkout, "ROS_WHEELS=no", "test")
