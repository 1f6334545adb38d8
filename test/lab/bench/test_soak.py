"""The soak campaign, short: each fault once or more, a kill, and the judgement at the end."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from salmonn_node.cli import main
from salmonn_node.lab.bench import soak_results
from salmonn_node.lab.bench.soak_planner import Silence


@pytest.mark.ros
@pytest.mark.full
@pytest.mark.timeout(1800)
def test_two_minutes_of_faults_leave_node_and_memory_as_they_should_be(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    try:
        out = tmp_path / "out.json"
        status = main(["bench", "soak", "--minutes", "2", "--directory", str(tmp_path / "soak"), "--json", str(out)])
    finally:
        torch.set_num_threads(threads)
    results = json.loads(out.read_text())["soak"]
    assert status == 0, results
    assert results["passed"]
    assert results["lives"] >= 2
    assert results["memories_compared"] >= 2
    assert results["faults"]["clock steps back"] > 0


def test_growth_is_that_of_a_warm_life() -> None:
    cold = [(0, 0)] * soak_results.WARM
    assert soak_results.life_growth(cold + [(100, 10)] * 20) == (0, 0)
    assert soak_results.life_growth(cold + [(100 + i, 10 + i) for i in range(20)]) == (15, 15)


def test_a_call_that_was_not_sent_is_excused_only_while_the_node_is_discovered_again() -> None:
    robot = SimpleNamespace(disturbed=[(10.0, 20.0)])
    for sent, began, excused in [
        (True, 19.0, True),
        (True, 20.5, False),
        (False, 20.5, True),
        (False, 20.0 + soak_results.DISCOVERY_S + 0.1, False),
        (False, 5.0, False),
    ]:
        call = Silence("ask", 0.3, began, began + 0.3, sent)
        lost = soak_results.lost_calls(robot, [], [SimpleNamespace(silent=[call])])  # type: ignore[arg-type,list-item]
        assert (lost == []) == excused, (sent, began)
