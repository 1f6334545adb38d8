"""`--help`, and commands that need no network, load no heavy library: each runs in a fresh process that lists them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from salmonn_node.cli import COMMANDS
from salmonn_node.lab.bench.gpu_parts import PARTS
from salmonn_node.lab.bench.persist import SHAPES
from salmonn_node.lab.bench.ttt_layer import SIZES
from salmonn_node.live.demo_recording import BAG, QUESTIONS

NETWORK = {"torch", "transformers", "rclpy", "scipy", "onnx", "tensorrt"}
HEAVY = NETWORK | {"rosbags", "cv2", "rich", "av", "safetensors"}
RUN = """
import contextlib, io, json, sys
from salmonn_node.cli import main
codes = []
with contextlib.redirect_stdout(io.StringIO()):
    for arguments in json.loads(sys.argv[1]):
        try:
            codes.append(main(arguments))
        except SystemExit as ended:
            codes.append(ended.code)
print(json.dumps([codes, sorted(sys.modules)]))
"""


def loaded(*commands: list[str]) -> tuple[list[int], set[str]]:
    """Exit statuses of commands that run in one process, and the modules that it holds afterwards."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(commands)], capture_output=True, text=True, check=True, timeout=120
    )
    codes, modules = json.loads(done.stdout)
    return codes, set(modules)


def actions(name: str) -> list[str]:
    """The actions of a command that has some."""
    from salmonn_node.cli import build_parser

    commands = build_parser(name)._subparsers._group_actions[0]
    found = [a for a in commands.choices[name]._actions if hasattr(a, "choices") and isinstance(a.choices, dict)]
    return list(found[0].choices) if found else []


def test_no_help_loads_a_heavy_library():
    asked = [["--help"]]
    for name in COMMANDS:
        asked += [[name, "--help"], *([name, action, "--help"] for action in actions(name))]

    codes, modules = loaded(*asked)

    assert len(asked) > 40
    assert codes == [0] * len(asked)
    assert not HEAVY & modules


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["memory", "--directory", "{empty}", "ls"], 0),
        (["memory", "--directory", "{empty}", "verify"], 2),  # there is nothing to verify
        (["memory", "--directory", "{empty}", "gc"], 0),
        (["questions", "check", str(QUESTIONS)], 0),
        (["bag", "info", str(BAG)], 0),
        (["bag", "cut", str(BAG), "{empty}/cut", "--duration", "1"], 0),
    ],
    ids=lambda a: " ".join(w for w in a if w.isalpha()) if isinstance(a, list) else str(a),
)
def test_what_needs_no_network_loads_none(arguments: list[str], code: int, tmp_path: Path):
    codes, modules = loaded([word.format(empty=tmp_path) for word in arguments])

    assert codes == [code]
    assert not NETWORK & modules


def test_the_choices_of_benchmarks_are_what_the_benchmarks_have():
    from salmonn_node.cli import build_parser

    def choices(benchmark: str, option: str) -> list[str]:
        bench = build_parser("bench")._subparsers._group_actions[0].choices["bench"]
        parser = bench._subparsers._group_actions[0].choices[benchmark]
        return list(parser._option_string_actions[option].choices)

    assert choices("gpu", "--only") == list(PARTS)
    assert choices("persist", "--shapes") == list(SHAPES)
    assert choices("memory", "--sizes") == list(SIZES)
