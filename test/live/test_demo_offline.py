"""`salmonn demo --offline` where there is no ROS: the same answers; commands that need ROS say so."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from salmonn_node.cli import main


@pytest.fixture(autouse=True)
def _no_ros(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("rclpy", "salmonn_interfaces"):
        for name in [n for n in sys.modules if n.partition(".")[0] == module]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, module, None)


def test_the_bag_is_replayed_and_answers_lie_in_the_folder(tmp_path: Path, capsys):
    assert main(["demo", "--offline", "--output", str(tmp_path / "out")]) == 0

    assert "12 of 12 right" in capsys.readouterr().out.replace("\n", " ")
    assert len(json.loads((tmp_path / "out" / "answers.json").read_text())["asked"]) == 12


def test_a_folder_that_no_demo_wrote_is_left_alone(tmp_path: Path, capsys):
    precious = tmp_path / "precious.txt"
    precious.write_text("kept")

    assert main(["demo", "--offline", "--output", str(tmp_path)]) == 2
    assert "no demo wrote" in capsys.readouterr().err
    assert precious.read_text() == "kept"


def test_what_needs_ros_says_so(capsys):
    assert main(["ask", "was the door open?"]) == 2
    assert "needs ROS 2" in capsys.readouterr().err
