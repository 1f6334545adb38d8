"""`salmonn ask --bag`: several questions, a prompt, typed answers with pictures, faults named by their exit status."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from salmonn_node.cli import main
from salmonn_node.live.demo_recording import BAG


@pytest.fixture(scope="module")
def bag(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bags") / "walk"
    assert main(["bag", "cut", str(BAG), str(folder), "--duration", "8"]) == 0
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> None:
    """One cache for all tests of this file."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "ask_cache"))


def test_several_questions_a_prompt_and_pictures(bag, tmp_path, capsys, monkeypatch):
    asked = ("Have you seen a blue cross?", "Where did you last see the blue cross?")
    assert main(["ask", "--bag", str(bag), "--output", str(tmp_path), *asked]) == 0
    shown = capsys.readouterr()
    assert "taken in: 8 frames" in shown.err
    for text in (*asked, "binary      yes", "POSITION", "weight", str(tmp_path)):
        assert text in shown.out
    monkeypatch.setattr("sys.stdin", io.StringIO("Have you seen a blue cross?\n\nHow many boxes were there?\n"))
    assert main(["ask", "--bag", str(bag), "--output", str(tmp_path), "--json"]) in (0, 1)
    shown = capsys.readouterr()
    assert "remembered from before" in shown.err
    decoder, answers, at = json.JSONDecoder(), [], 0
    while at < len(shown.out.rstrip()):
        value, end = decoder.raw_decode(shown.out[at:])
        answers.append(value)
        at += end + 1
    assert [a["question"] for a in answers] == ["Have you seen a blue cross?", "How many boxes were there?"]
    assert answers[1]["answer"]["answer_type"] == "COUNT"
    pictures = [path for a in answers for path in a["pictures"] if path]
    assert pictures
    assert all(Path(path).read_bytes()[:2] == b"\xff\xd8" for path in pictures)


def test_faults_are_named(bag, tmp_path, capsys):
    for words, reason in (
        (["--bag", str(tmp_path / "nowhere"), "why?"], "no such file or directory"),
        (["--bag", str(bag), "--checkpoint", "/nowhere", "why?"], "is not a folder"),
        (["--bag", str(bag), "--mount", "front=1,2", "why?"], "--mount: expected"),
        (["one?", "two?"], "--bag BAG asks a recording"),
    ):
        assert main(["ask", *words]) == 2
        assert reason in capsys.readouterr().err
    assert main(["ask", "--bag", str(bag), "--output", str(tmp_path), " "]) == 2
    assert "INVALID_REQUEST" in capsys.readouterr().out
