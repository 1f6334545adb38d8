"""`salmonn ask` against a running node: exit statuses, odd numbers and names, Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from .harness import PATIENCE_S, ROOT, NodeProcess, Robot, _environment

pytestmark = pytest.mark.ros

MANY = """
import contextlib, io, json, sys
from salmonn_node.cli import main
for arguments in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            status = main(["ask", *arguments])
        except SystemExit as end:
            status = end.code
    print(json.dumps([status, said.getvalue()]))
"""


def run(*asked: list[str]) -> list[tuple[int, str]]:
    """Exit status and output of several calls, one after the other in one process."""
    command = [sys.executable, "-c", MANY, json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, cwd=ROOT, env=_environment())
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_answers_and_exit_statuses(node: NodeProcess, seen: int) -> None:
    wait = ["--timeout", str(PATIENCE_S)]
    answered, whole, missing, window = run(
        ["never", "--type", "binary", *wait],
        ["point 3", "--type", "position", "--json", *wait],
        ["where?", "--node", "nobody", "--timeout", "0.5"],
        ["never", "--type", "binary", "--after", f"{seen // 10**9 + 1000}.000000001", "--timeout", "1"],
    )
    assert answered[0] == 0
    assert "binary      no" in answered[1]
    assert whole[0] == 0
    assert json.loads(whole[1])["pose"]["position"][0] == pytest.approx(2.0)
    assert missing[0] == 2
    assert "NOT_ACTIVE" in missing[1]
    assert window[0] in (1, 2), window


def test_numbers_and_names_that_cannot_be_are_refused_and_said() -> None:
    asked = {
        ("--before", "-30"): "before is -30000000000 ns; it must not be negative",
        ("--after", "nan"): "'nan' is not a number of seconds",
        ("--before", "inf"): "'inf' is not a number of seconds",
        ("--before", "soon"): "'soon' is not a number of seconds",
        ("--before", "1e12"): "it must be at most",
        ("--before", "1767254402000"): "it must be at most",
        ("--after", "20", "--before", "10"): "is later than before",
        ("--timeout", "0"): "timeout_s is 0; it must be more",
        ("--timeout", "-1"): "timeout is -1.0 s",
        ("--timeout", "nan"): "timeout is nan s",
        ("--timeout", "1e10"): "timeout is 10000000000.0 s",
        ("--node", "my robot/salmonn"): "is not the name of a ROS node",
        ("--node", ""): "is not the name of a ROS node",
        ("--choice", "red"): "choices are given",
    }
    for (arguments, said), (status, output) in zip(asked.items(), run(*(["x?", *a] for a in asked)), strict=True):
        assert status == 2, (arguments, output)
        assert said in output, (arguments, output)
        assert "Traceback" not in output


def test_ctrl_c_cancels_the_question(node: NodeProcess, seen: int, robot: Robot) -> None:
    command = [sys.executable, "-m", "salmonn_node.cli", "ask", "hang", "--timeout", str(PATIENCE_S)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=_environment()
    )
    robot.wait(lambda: robot.count("questions", "open") == 1, PATIENCE_S, "the question is being answered")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert output.strip() == "CANCELED: canceled by the caller"
    robot.wait(lambda: robot.count("questions", "open") == 0, PATIENCE_S, "the node has let it go")
