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
from salmonn_node.model.checkpoint import load
from salmonn_node.model.own_calibration import own_calibration, write_whole
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
