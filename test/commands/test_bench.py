"""`salmonn bench`: each benchmark of the TTT layer runs small, prints its table and writes its JSON."""

from __future__ import annotations

import json

import pytest
import torch

from salmonn_node.cli import main
from salmonn_node.lab.bench import recall


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_recall_is_resumed_and_tabled(tmp_path, capsys):
    results = str(tmp_path / "recall.json")
    sizes = ["--seeds", "1", "--steps", "12", "--updates", "8", "--threads", "1"]
    arguments = ["bench", "recall", *sizes, "--results", results, "--json", str(tmp_path / "out.json")]
    arguments += ["--arms", "SGD 0.01", "HF K=1"]
    assert main(arguments) == 0
    first = json.loads((tmp_path / "recall.json").read_text())
    assert {run["name"] for run in first.values()} == {"SGD 0.01", "HF K=1"}
    assert "Recall by age" in capsys.readouterr().out
    assert main(arguments) == 0
    assert json.loads((tmp_path / "recall.json").read_text()) == first
    assert json.loads((tmp_path / "out.json").read_text())["recall"] == first


def test_fact_streams_know_what_they_bound():
    stream = recall.FactStream(2, seed=0)
    for _ in range(recall.KEYS // recall.FACTS):
        tokens = stream.mini_batch()
    assert tokens.shape == (2, recall.MINI_BATCH, recall.HIDDEN)
    assert stream.ages().min() == 1
    assert stream.ages().max() == recall.KEYS // recall.FACTS
    newest = (stream.ages() == 1).nonzero()
    for b, key in newest.tolist():
        token = stream.keys[key] + stream.values[stream.bound[b, key]]
        assert (tokens[b] - token).abs().amax(-1).min() < 0.6


def test_endurance_of_a_short_run(tmp_path, capsys):
    assert main(["bench", "endurance", "--updates", "30", "--threads", "1", "--json", str(tmp_path / "out.json")]) == 0
    arms = json.loads((tmp_path / "out.json").read_text())["endurance"]
    assert len(arms) == 6
    assert all(arm["finite"] and arm["objective"][-1] < arm["objective"][0] for arm in arms.values())
    assert "HF K=2 bfloat16" in capsys.readouterr().out


@pytest.mark.full
@pytest.mark.parametrize("name", ["SGD", "HF K=2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_hundred_thousand_mini_batches_stay_finite(name, dtype):
    from dataclasses import replace

    from salmonn_node.lab.bench.endurance import ARMS, TINY, endure

    result = endure(replace(TINY, **ARMS[name]), 100_000, dtype)
    assert result["finite"]
    # Bounded: the last tenth is no larger than a few times the norms of the second tenth.
    assert max(result["norm"][-5:]) < 10 * max(result["norm"][5:10])
