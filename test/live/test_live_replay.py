"""Live and offline give the same answers: node, player and client as real processes against the inline replay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from live.tiled_bag import TILE_NS, write_tiled
from replay.bags import START_NS, write_bag

from salmonn_node.answering.grounding import Grounding
from salmonn_node.evaluation.questions import Expected, QuestionRecord, read_questions
from salmonn_node.evaluation.scores import judge
from salmonn_node.live.compare import compare
from salmonn_node.replay.bag_stream import BagStream
from salmonn_node.replay.job import Job, JobSettings, run_job
from salmonn_node.stream.answers import Outcome
from salmonn_node.stream.observations import SECOND_NS
from salmonn_node.stream.transforms import mounted


@pytest.mark.ros
@pytest.mark.timeout(600)
def test_live_answers_equal_offline_answers(tmp_path):
    from salmonn_node.live.live_replay import ask_live

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
    assert (live.lost, live.late) == ({}, {})
    for item in compare(job, offline, live.answers):
        assert not item.differences, item
    for answer in live.answers.values():
        assert {piece.pose.map_id for piece in answer.evidence} == ({"flat"} if answer.evidence else set())
        assert bool(answer.evidence) == (answer.outcome == Outcome.ANSWERED), "what was not observed rests on nothing"


def test_the_demo_recording_says_where_its_camera_is():
    """So that the demo and a replay of its bag need no option, and agree."""
    from salmonn_node.lab.world.mount import BASE_FRAME, CAMERA_MOUNT, GROUND_Z_M
    from salmonn_node.live.demo_recording import BAG

    grounding = Grounding()
    with BagStream(BAG, grounding=grounding) as stream:
        next(iter(stream))
    found = grounding.frames.lookup(BASE_FRAME, "front_camera_optical_frame", START_NS)
    wanted = mounted(BASE_FRAME, "front_camera_optical_frame", CAMERA_MOUNT)
    assert found is not None
    np.testing.assert_allclose(found.position, wanted.position - [0, 0, GROUND_Z_M])
    np.testing.assert_allclose(found.orientation, wanted.orientation)


@pytest.mark.ros
@pytest.mark.full
@pytest.mark.timeout(900)
def test_the_demo_and_a_replay_of_its_bag_agree_question_by_question(tmp_path):
    from salmonn_node.live.demo_recording import BAG, QUESTIONS

    command = [sys.executable, "-m", "salmonn_node.cli", "demo", "--output", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = json.loads((tmp_path / "demo" / "answers.json").read_text())["asked"]
    records = tuple(read_questions(QUESTIONS))
    replayed = run_job(Job(BAG, records, JobSettings(map_id="demo"), tmp_path / "replay"))
    answers = {item.id: item.answer for item in replayed.answers}
    offline = {record.id: judge(record, answers[record.id]) for record in records}
    assert {item["question"]["id"]: item["right"] for item in shown} == {id: j.correct for id, j in offline.items()}
    assert sum(j.correct for j in offline.values()) >= 11


@pytest.mark.ros
@pytest.mark.full
@pytest.mark.timeout(900)
def test_the_demo_recording_gives_equal_answers_live_and_offline(tmp_path):
    """As a user runs it, with each question also asked earlier, while the robot still drives."""
    from salmonn_node.live.demo_recording import BAG, QUESTIONS

    records = list(read_questions(QUESTIONS))
    first_ns = min(record.ask_ns for record in records) - 60 * SECOND_NS
    often = [
        record.model_copy(update={"id": f"{record.id}@{earlier}", "ask_ns": first_ns + earlier * SECOND_NS})
        for record in records
        for earlier in (0, 17, 41)
    ]
    asked = tmp_path / "questions.jsonl"
    asked.write_text("".join(record.model_dump_json() + "\n" for record in (*records, *often)))
    command = [sys.executable, "-m", "salmonn_node.cli", "replay", str(BAG), "--questions", str(asked)]
    command += ["--live", "--rate", "4", "--map-id", "demo", "--output", str(tmp_path / "out")]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"0 of {4 * len(records)} answers differ" in done.stdout


@pytest.mark.ros
@pytest.mark.full
@pytest.mark.timeout(3600)
def test_an_hour_gives_equal_answers_live_and_offline(tmp_path):
    """Ten times as fast as recorded; 40 questions over the hour. Answers agree to the last bit that messages carry."""
    from salmonn_node.live.demo_recording import QUESTIONS

    tiles, number = 43, 40
    start_ns = write_tiled(tmp_path / "hour", tiles)
    step_ns = tiles * TILE_NS // (number + 1)
    records = list(read_questions(QUESTIONS))
    asked = []
    for i in range(number):
        record, ask_ns = records[i % len(records)], start_ns + (i + 1) * step_ns
        asked.append(record.model_copy(update={"id": f"{record.id}@{i}", "stream": "", "ask_ns": ask_ns}))
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(record.model_dump_json() + "\n" for record in asked))
    command = [sys.executable, "-m", "salmonn_node.cli", "replay", str(tmp_path / "hour"), "--live", "--rate", "10"]
    command += ["--questions", str(questions), "--map-id", "demo", "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"0 of {number} answers differ" in done.stdout
