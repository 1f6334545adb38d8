"""The network's golden vectors pass through the code that the node runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from salmonn_node.lab.bench.golden import check_file, load_families

GOLDEN = Path(__file__).parent.parent / "data" / "golden"


@pytest.mark.parametrize("name", ["e2e_noread.safetensors", "rope_index.safetensors", "prompt_cases.json"])
def test_vectors(name):
    load_families()
    result = check_file(GOLDEN / name)
    failed = [check for check in result.checks if not check.passed]
    assert result.state == "passed", (result.detail, failed)
