"""Shared memory that a killed process left empty: removed when it is old, waited for when it is young."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from salmonn_node.runtime.shared_memory import FIRST_PORT, FOLDER, PORTS_PER_DOMAIN, remove_empty_ports

DOMAIN = 97


def port(folder: Path, domain: int = DOMAIN, offset: int = 11, age_s: float = 60.0) -> Path:
    path = folder / f"fastrtps_port{FIRST_PORT + PORTS_PER_DOMAIN * domain + offset}"
    path.touch()
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_an_old_empty_port_of_the_domain_is_removed_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    left, elsewhere, whole = port(tmp_path), port(tmp_path, DOMAIN + 1), port(tmp_path, offset=13)
    whole.write_bytes(b"contents")
    lock = tmp_path / f"{left.name}_el"
    lock.touch()
    remove_empty_ports(DOMAIN, folder=tmp_path)
    assert not left.exists()
    assert all(path.exists() for path in (elsewhere, whole, lock))
    assert f"removed {left}" in capsys.readouterr().err


def test_a_port_that_is_being_made_is_waited_for(tmp_path: Path):
    path = port(tmp_path, age_s=0.0)
    maker = threading.Timer(0.3, lambda: path.write_bytes(b"contents"))
    maker.start()
    remove_empty_ports(DOMAIN, folder=tmp_path)
    assert path.read_bytes() == b"contents"


def test_one_that_stays_empty_is_removed_once_it_is_old(tmp_path: Path):
    path = port(tmp_path, age_s=0.0)
    remove_empty_ports(DOMAIN, folder=tmp_path, abandoned_s=0.2)
    assert not path.exists()


def test_what_cannot_be_removed_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    path = port(tmp_path)
    monkeypatch.setattr(Path, "unlink", refuse)
    remove_empty_ports(DOMAIN, folder=tmp_path)
    assert f"remove {path}" in capsys.readouterr().err


def test_without_shared_memory_nothing_happens(tmp_path: Path):
    remove_empty_ports(DOMAIN, folder=tmp_path / "absent")


@pytest.mark.ros
def test_a_process_starts_where_an_earlier_one_left_an_empty_port():
    code = (
        "from salmonn_node.runtime.shared_memory import remove_empty_ports\n"
        "import rclpy\nremove_empty_ports()\nrclpy.init()\nrclpy.create_node('later')\nprint('made')"
    )
    left = port(FOLDER)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "ROS_DOMAIN_ID": str(DOMAIN), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        if left.exists() and not left.stat().st_size:
            left.unlink()
    assert "made" in done.stdout, done.stderr
    assert f"removed {left}" in done.stderr
