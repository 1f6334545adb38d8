"""Live and offline give the same answers: node, player and client as real processes against the inline replay."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from salmonn_node.replay.job import Job, JobSettings, run_job
from salmonn_node.replay.live import compare
from salmonn_node.replay.questions import Expected, QuestionRecord
from salmonn_node.stream.observations import SECOND_NS

sys.path.insert(0, str(Path(__file__).parents[1] / "replay"))
from bags import START_NS, write_bag


@pytest.mark.ros
@pytest.mark.full
def test_live_answers_equal_offline_answers(tmp_path):
    from salmonn_node.ros.live_replay import ask_live

    bag = write_bag(tmp_path / "walk", seconds=8)
    questions = tuple(
        QuestionRecord(
            id=name,
            ask_ns=START_NS + round(second * SECOND_NS),
            text="Did you see a light room?",
            answer_type="BINARY",
            expected=Expected(binary=True),
        )
        for name, second in (("early", 3.0), ("late", 6.5))
    )
    job = Job(bag, questions, JobSettings(map_id="flat"), tmp_path / "out")
    offline = {answered.id: answered.answer for answered in run_job(job).answers}
    live = ask_live(job)
    for item in compare(job, offline, live):
        assert not item.fields, (item.id, item.fields, item.offline, item.live)
    for answer in live.values():
        assert answer.evidence
        assert {piece.pose.map_id for piece in answer.evidence} == {"flat"}
