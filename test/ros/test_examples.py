"""The examples for planners, against a running node."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import pytest

from salmonn_node.client import Memory
from salmonn_node.stream.answers import AnswerType

from .harness import PATIENCE_S, ROOT, Robot

sys.path.insert(0, str(ROOT / "examples"))

import py_trees
import question_schema
from behaviour_tree import AskMemory
from py_trees.common import Status

pytestmark = pytest.mark.ros


def test_behaviour_asks_and_leaves_the_answer_on_the_blackboard(memory: Memory, seen: int, robot: Robot) -> None:
    tree = AskMemory("ask", memory, "point 3", answer_type=AnswerType.POSITION, timeout_s=PATIENCE_S)
    assert _tick(tree) == Status.SUCCESS, tree.feedback_message
    board = py_trees.blackboard.Client(name="test")
    board.register_key(key="answer", access=py_trees.common.Access.READ)
    assert board.answer.pose.position[0] == pytest.approx(2.0)
    condition = AskMemory("is it so", memory, "never", answer_type=AnswerType.BINARY, timeout_s=PATIENCE_S)
    assert _tick(condition) == Status.FAILURE
    assert condition.feedback_message.startswith("ANSWERED")
    left = AskMemory("long", memory, "hang", timeout_s=60.0)
    left.tick_once()
    robot.wait(lambda: robot.count("questions", "open") == 1, PATIENCE_S, "the question is being answered")
    left.stop(Status.INVALID)
    robot.wait(lambda: robot.count("questions", "open") == 0, PATIENCE_S, "leaving the behaviour cancels the question")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"text": None}, "text"),
        ({"text": "x", "max_evidence": -1}, "max_evidence"),
        ({"text": "x", "colour": 1}, "colour"),
    ],
    ids=str,
)
def test_behaviour_that_cannot_ask_fails_and_says_why(memory: Memory, arguments: dict[str, Any], named: str) -> None:
    tree = AskMemory("ask", memory, **arguments)
    assert _tick(tree) == Status.FAILURE
    assert named in tree.feedback_message


def _tick(behaviour: AskMemory, timeout_s: float = 40.0) -> Status:
    give_up = time.monotonic() + timeout_s
    behaviour.tick_once()
    while behaviour.status == Status.RUNNING and time.monotonic() < give_up:
        time.sleep(0.05)
        behaviour.tick_once()
    return behaviour.status


def test_schema_follows_the_interface_and_a_call_is_carried_out(memory: Memory, seen: int) -> None:
    ask, _ = question_schema.tools.descriptions()
    properties = ask["inputSchema"]["properties"]
    assert properties["answer_type"]["enum"][3] == "POSITION"
    assert properties["after"]["description"] == "zero: the start of the memory"
    assert all(p["description"] for p in properties.values()), "each field of Question.msg has a comment"
    arguments = {"text": "point 3", "answer_type": "POSITION", "timeout": PATIENCE_S}
    answer = json.loads(question_schema.call(memory, json.dumps(arguments)))
    assert answer["pose"]["position_m"][0] == pytest.approx(2.0)
    assert answer["evidence"][0]["seen_s"][1] <= seen * 1e-9 + 1e-3
