"""`salmonn calibrate` on the demo's bag: written whole, used from then on, never into a cache that others share."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from salmonn_node.cli import main
from salmonn_node.evaluation.questions import write_questions
from salmonn_node.lab.world.asking import ask
from salmonn_node.lab.world.truth_file import truth_from_json
from salmonn_node.live.demo_recording import BAG, TRUTH
from salmonn_node.model.checkpoint import load, save
from salmonn_node.model.own_calibration import own_calibration, write_whole
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.replay.bag_cut import cut_bag

SECONDS = 40


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


def questions(folder: Path, count: int = 30) -> Path:
    truth = truth_from_json(TRUTH.read_text()).piece(0, SECONDS)
    file = folder / "questions.jsonl"
    write_questions(file, ask(truth, 7, count, times=[SECONDS]))
    return file


def test_it_fits_writes_and_is_used_from_then_on(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped = load("tiny").checkpoint
    bag = home / "bag"
    cut_bag(BAG, bag, duration_s=float(SECONDS))
    flags = ["calibrate", "--bag", str(bag), "--questions", str(questions(home))]

    assert main(flags) == 0

    told = capsys.readouterr()
    assert "made, taken as unanswerable" in told.err
    assert "calibration error of confidences" in told.out
    path = own_calibration(shipped.id)
    assert str(path) in told.out.replace("\n", "")
    made = json.loads(path.read_text())
    assert (made["checkpoint"], made["null_above"]) == (shipped.id, 0.3), "what is not fitted stays"
    assert made["temperature"]
    assert list(path.parent.iterdir()) == [path], "nothing partial is left"
    assert load("tiny").checkpoint.calibration == path
    assert shipped.calibration is not None
    assert shipped.calibration.parent != path.parent


@pytest.mark.full
def test_a_network_that_cannot_point_is_calibrated_from_a_bag_and_ask_uses_the_file(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random weights: what they answer means nothing, but every number goes the whole way."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    bag, network, short = home / "bag", home / "network", ["--max-new-tokens", "4"]
    cut_bag(BAG, bag, duration_s=float(SECONDS))
    about = {"name": "random", "trained": False, "family": "tiny_without_head"}
    save(VideoSalmonnS.tiny(seed=3, evidence_head=False, recall=False), network, about=about)
    asked = ["--bag", str(bag), "--checkpoint", str(network), *short]

    assert main(["calibrate", "--questions", str(questions(home)), *asked]) == 0

    told = capsys.readouterr().out
    for words in (
        "before",
        "abstention F1",
        "strongest evidence lies on the true one",
        "attention heads: ",
        "from now on",
    ):
        assert words in told
    path = own_calibration(load(str(network)).checkpoint.id)
    made = json.loads(path.read_text())
    assert ("observed" in made) != ("the rule without a calibration stays" in told)
    assert made["temperature"]

    ask = ["ask", "--output", str(home / "pictures"), *asked, "Which room was the blue cross in?"]
    made["heads"] = [[1, 2], [3, 0]]
    made["observed"] = {"weights": {"shown": 0.1, "sufficiency": 0.1}, "bias": 0.0, "least": 1.0}
    path.write_text(json.dumps(made))
    assert main(ask) == 1
    assert "NOT_OBSERVED" in capsys.readouterr().out
    made["observed"]["least"] = 0.0
    path.write_text(json.dumps(made))
    assert main(ask) == 0
    assert "confidence" in capsys.readouterr().out
    made["heads"] = [[1, 9]]
    path.write_text(json.dumps(made))
    assert main(ask) == 2
    assert "layer 1, head 9; the network has 4 layers of 4 heads" in capsys.readouterr().err


def test_what_cannot_be_used_is_said_and_nothing_is_written(home: Path, monkeypatch, capsys) -> None:
    file = questions(home, 4)
    assert main(["calibrate", "--bag", str(BAG), "--questions", str(file)]) == 2
    assert "expected 20 questions or more" in capsys.readouterr().err
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
    inside = home / "hub" / "models--a--b" / "snapshots" / "1" / "calibration.json"
    assert main(["calibrate", "--bag", str(BAG), "--questions", str(file), "--out", str(inside)]) == 2
    assert "which others share" in capsys.readouterr().err
    assert main(["calibrate", "--bag", str(home / "none"), "--questions", str(questions(home))]) == 2
    assert not (home / "data").exists()
    assert not inside.exists()


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "calibration.json"
    write_whole(path, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]
