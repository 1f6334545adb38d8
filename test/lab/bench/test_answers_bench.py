"""The benchmark of answers over real ROS, small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from salmonn_node.cli import main


@pytest.mark.full
@pytest.mark.ros
def test_every_question_gets_a_reply_and_none_is_answered_late(tmp_path: Path) -> None:
    file = tmp_path / "answers.json"
    assert main(["bench", "answers", "--questions", "100", "--rounds", "1", "--json", str(file)]) == 0
    figures = json.loads(file.read_text())["answers"]
    assert figures["burst"]["replies"] == 100
    assert figures["burst"]["answered_late"] == 0
    assert not any(figures["ingest_lost"].values())
    assert figures["sensors_sent_throughout"]
    assert set(figures["alone"]) == {"TEXT", "BINARY", "POSITION", "TIME", "DURATION", "COUNT", "CHOICE"}
