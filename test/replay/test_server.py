"""`salmonn replay` and `salmonn ask --bag` with a server as the reader. The server is a STUB; the bag is the demo's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from salmonn_node.cli import main
from salmonn_node.evaluation.answer_file import read_answers
from salmonn_node.evaluation.questions import usable_questions
from salmonn_node.lab.perfect_reader import PerfectReader
from salmonn_node.lab.stub_server import StubServer, pictures_of, text_of
from salmonn_node.lab.world.truth_file import truth_from_json
from salmonn_node.live.demo_recording import BAG, QUESTIONS, TRUTH
from salmonn_node.stream.answers import ErrorCode


@pytest.fixture
def server() -> Iterator[StubServer]:
    records, _ = usable_questions(QUESTIONS)
    with StubServer(PerfectReader(truth_from_json(TRUTH.read_text()), records)) as server:
        yield server


def flags(server: StubServer) -> list[str]:
    return ["--reader", "server", "--server-url", server.url, "--server-model", "stub"]


def test_a_replay_asks_the_server_and_shows_what_was_sent(server: StubServer, tmp_path: Path) -> None:
    given = [str(BAG), "--questions", str(QUESTIONS), "--output", str(tmp_path), "--captions", "2", "--explain"]
    assert main(["replay", *given, *flags(server)]) == 0
    answers = list(read_answers(tmp_path / "default" / BAG.name / "answers.jsonl"))
    assert answers
    assert all(answered.answer.error_code == ErrorCode.NONE for answered in answers), answers
    assert any(answered.answer.evidence for answered in answers)
    pages = list((tmp_path / "default" / BAG.name / "sent").glob("*.html"))
    assert len(pages) == len(answers)
    assert any("data:image/jpeg" in page.read_text() for page in pages)
    assert sum("at most 12 words" in text_of(request) for request in server.requests) > 0


def test_a_recording_is_asked_and_pictures_without_the_question_are_a_choice(
    server: StubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    server.script = lambda request: (
        '{"events": [1, 2]}'
        if "The log:" in text_of(request)
        else json.dumps({"observed": True, "text": "a <b>flat</b>", "pictures": [1]})
    )
    page = tmp_path / "sent.html"
    ask = ["ask", "--bag", str(BAG), *flags(server), "--output", str(tmp_path / "pictures"), "what is there?"]
    assert main([*ask, "--explain", str(page)]) == 0
    assert "a <b>flat</b>" in capsys.readouterr().out
    assert "a &lt;b&gt;flat&lt;/b&gt;" in page.read_text()
    assert len(server.requests) == 2
    for choice in ("uniform", "last"):
        server.requests.clear()
        assert main([*ask, "--server-choice", choice, "--server-pictures", "3"]) == 0
        (request,) = server.requests  # there is no first pass
        assert len(pictures_of(request)) == 3
    assert "ANOTHER MACHINE" not in capsys.readouterr().err


def test_words_of_a_first_question_are_there_for_the_second(
    server: StubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["bag", "cut", str(BAG), str(tmp_path / "bag"), "--duration", "24"]) == 0
    ask = ["ask", "--bag", str(tmp_path / "bag"), *flags(server), "--captions", "1000"]

    def asked(*more: str) -> tuple[int, str]:
        """How many captions a question costs, and the log that it sends."""
        server.requests.clear()
        assert main([*ask, "is there a snake?", *more]) in (0, 1)
        texts = [text_of(request) for request in server.requests]
        return sum("at most 12 words" in text for text in texts), next(t for t in texts if "The log:" in t)

    captions, first = asked()
    assert captions > 5
    assert first.count("| a picture of a flat") == captions
    assert asked() == (0, first)
    # A log that is too long for the server is narrowed, and both the server and the asker are told.
    capsys.readouterr()
    _, narrowed = asked("--server-log-chars", "1000")
    told = re.search(r"The log was too long: you (read \d+ of \d+ events)\.", narrowed)
    assert told is not None
    assert f"({told[1]})" in capsys.readouterr().out
    assert asked("--fresh") == (captions, first)


def test_a_server_elsewhere_is_refused_before_anything_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    ask = ["ask", "--bag", str(BAG), "--reader", "server", "--server-url", "http://192.0.2.1/v1", "--server-model", "m"]
    assert main([*ask, "what is there?"]) == 2
    assert "server_allow_remote" in capsys.readouterr().err
