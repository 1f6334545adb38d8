"""The page of a running node loads no network library: it is a light process beside the node."""

from __future__ import annotations

import subprocess
import sys

NEVER = ("torch", "transformers")


def test_the_page_of_a_node_loads_no_torch():
    code = (
        "import sys, salmonn_node.commands.ui, salmonn_node.ui.opening, salmonn_node.ui.node_source, "
        f"salmonn_node.ui.server; print([name for name in {NEVER} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
