"""What a planner imports loads neither the network nor the node."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.ros

PROGRAM = """
import sys
from salmonn_node.client import AnswerType, ErrorCode, Memory, Outcome
rooms = {name.split(".")[1] for name in sys.modules if name.startswith("salmonn_node.")}
print(sorted(rooms), sorted({"torch", "transformers", "rosbags", "mcp"} & set(sys.modules)))
"""


def test_the_client_loads_no_torch_and_no_room_but_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=True)

    assert done.stdout.strip() == "['client', 'messages', 'stream'] []"
