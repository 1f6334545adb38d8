"""What a live replay says of two sets of answers, without ROS: where they differ, and what explains it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.live.compare import asked_within, compare, explanation
from salmonn_node.replay.job import Job, JobSettings
from salmonn_node.stream.answers import Answer, Evidence
from salmonn_node.stream.observations import Interval


def job(*asked_ns: int) -> Job:
    records = (QuestionRecord(id=f"q{i}", ask_ns=ns, text="what?", answerable=False) for i, ns in enumerate(asked_ns))
    return Job(Path("bag"), tuple(records), JobSettings(), Path("out"))


def answer(score: float, text: str = "a box") -> Answer:
    evidence = Evidence(Interval(1, 2), "vision", "front", "optical", score, None)
    return Answer(text=text, evidence=(evidence, evidence), last_observation_ns=round(score * 1e9))


def test_a_difference_is_named_by_its_place_and_float32_is_none() -> None:
    offline = answer(1 / 3)
    carried = replace(offline.evidence[0], score=float(np.float32(1 / 3)))
    same = replace(offline, evidence=(carried, carried), last_observation_ns=7)
    other = replace(offline, text="a ball", evidence=(carried, replace(carried, score=0.5)))
    compared = compare(job(1, 2, 3), dict.fromkeys(("q0", "q1", "q2"), offline), {"q0": same, "q1": other})
    assert compared[0].differences == ()
    assert compared[1].differences == (("text", "a box", "a ball"), ("evidence[1].score", 1 / 3, 0.5))
    assert ("text", "a box", "") in compared[2].differences, "a question without an answer differs"


def test_what_explains_differences_is_told_with_its_number() -> None:
    live = SimpleNamespace(lost={"/eye": 3}, late={"mic": 2}, drops={"not_sampled": 5, "queue_full": 1})
    assert explanation(live, {"not_sampled": 5, "stamp_zero": 4}) == [
        "3 messages of /eye were lost on their way",
        "2 observations of mic came after a view that they belonged to",
        "queue_full: 1 observations were dropped live, 0 offline",
        "stamp_zero: 0 observations were dropped live, 4 offline",
    ]
    assert explanation(SimpleNamespace(lost={}, late={}, drops={"not_sampled": 5}), {"not_sampled": 5}) == []


def test_a_question_behind_the_end_is_asked_at_the_end() -> None:
    assert [record.ask_ns for record in asked_within(job(5, 50), 20).questions] == [5, 20]
