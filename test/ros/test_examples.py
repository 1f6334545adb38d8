"""The examples for planners, against a running node."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest

from salmonn_node.client import Memory
from salmonn_node.stream.answers import AnswerType

from .harness import PATIENCE_S, ROOT, Robot, _environment

sys.path.insert(0, str(ROOT / "examples"))

import mcp_server
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


def test_schema_follows_the_interface() -> None:
    tool = question_schema.tool()
    properties = tool["inputSchema"]["properties"]
    assert properties["answer_type"]["enum"][3] == "POSITION"
    assert properties["after"]["description"] == "zero: the start of the memory"
    assert all(p["description"] for p in properties.values()), "each field of Question.msg has a comment"
    json.dumps(tool)


def test_assistant_asks_over_mcp(memory: Memory, seen: int) -> None:
    call = {"name": "ask_memory", "arguments": {"text": "point 3", "answer_type": "POSITION", "timeout": 30}}
    requests = [
        {"id": 1, "method": "initialize", "params": {"protocolVersion": "2025-03-26", "capabilities": {}}},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/list"},
        {"id": 3, "method": "tools/call", "params": call},
    ]
    lines = "".join(json.dumps({"jsonrpc": "2.0", **r}) + "\n" for r in requests)
    command = [sys.executable, str(ROOT / "examples/mcp_server.py"), "salmonn"]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=60, env=_environment())
    first, listed, called = map(json.loads, done.stdout.splitlines())
    assert first["result"]["protocolVersion"] == "2025-03-26"
    assert [t["name"] for t in listed["result"]["tools"]] == ["ask_memory"]
    assert called["result"]["isError"] is False, called
    answer = json.loads(called["result"]["content"][0]["text"])
    assert answer["pose"]["position_m"][0] == pytest.approx(2.0)
    assert answer["evidence"][0]["seen_s"][1] <= seen * 1e-9 + 1e-3


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("{", -32700),
        ("[1]", -32600),
        ('{"id": 1, "method": "memory/clear"}', -32601),
        ('{"id": 1, "method": "tools/call", "params": {"name": "clear"}}', -32602),
        ('{"id": 1, "method": "tools/call", "params": [1]}', -32602),
    ],
)
def test_bad_messages_are_refused_and_nothing_is_asked(line: str, code: int) -> None:
    assert mcp_server.respond(None, line)["error"]["code"] == code


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"text": 3},
        {"text": "x", "colour": "red"},
        {"text": "x", "answer_type": "POEM"},
        {"text": "x", "after": "!"},
    ],
)
def test_bad_arguments_are_results_that_name_them(arguments: dict[str, object]) -> None:
    call = {"id": 1, "method": "tools/call", "params": {"name": "ask_memory", "arguments": arguments}}
    result = mcp_server.respond(None, json.dumps(call))["result"]
    assert result["isError"] is True
    assert "INVALID_REQUEST" in result["content"][0]["text"]
