"""`salmonn eval`: oracles beside the default, the plot, and rows that other weights do not reuse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from lab.training.banked import tokens

from salmonn_node.cli import main
from salmonn_node.lab.training import eval_scores
from salmonn_node.lab.training.eval_plot import write_plot
from salmonn_node.lab.training.eval_scores import arm_model, fingerprint, score
from salmonn_node.lab.training.eval_sets import SETS
from salmonn_node.lab.training.evaluate import perfect, records
from salmonn_node.lab.training.told_questions import ToldQuestions, slots_of
from salmonn_node.lab.world.asking import ask
from salmonn_node.stream.answers import AnswerType


def test_what_a_question_asks_is_told() -> None:
    model = arm_model("tiny", "told")
    assert model.event_parts is not None
    told = ToldQuestions(model, model.event_parts)
    for record in ask(tokens(80).truth, 600_000, 60, times=[80]):
        told.record = record
        read = told.understood("any words", AnswerType[record.answer_type])
        assert read is not None
        assert read.form == record.about["template"]
        assert ("colour" in read.slots) == ("thing" in record.about)
        for choice in record.choices if record.about["template"].startswith("order") else ():
            assert told.understood(choice).form == "name"  # type: ignore[union-attr]
    assert told.understood("the window") is None
    assert slots_of({"thing": "person in red"}) == {"colour": "red", "shape": "person"}
    assert slots_of({"shapes": "crosses", "room": "kitchen"}) == {"shape": "cross", "room": "kitchen"}


def test_the_oracle_is_always_right() -> None:
    stream = tokens(80)
    assert all(a.judged().correct for a in perfect(stream, records(stream, 40, 600_000, "demo")))


def test_rows_belong_to_the_weights_that_made_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fingerprint(arm_model("tiny", "default")) != fingerprint(arm_model("tiny", "network"))
    runs: list[str] = []

    def streams_of(chosen: object, *_: object) -> list[object]:
        runs.append(str(chosen))
        return [tokens(80)]

    monkeypatch.setattr(eval_scores, "streams_of", streams_of)
    rows, plot = tmp_path / "rows.jsonl", tmp_path / "plot.svg"
    command = [
        "eval",
        "tiny",
        "--arms",
        "blind,oracle",
        "--sets",
        "dense-4x",
        "--results",
        str(rows),
        "--plot",
        str(plot),
    ]
    for expected in (1, 1):  # the second time, the rows are there
        assert main(command) == 0
        assert len(runs) == expected
    assert "dense-4x oracle: stream 1 of 1" in capsys.readouterr().err
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [(row["arm"], row["answerable"]) for row in found][1] == ("oracle", 1.0)
    rows.write_text("".join(json.dumps(row | {"weights": "others"}) + "\n" for row in found))
    assert main(command) == 0
    assert len(runs) == 2
    rows.write_text("".join(json.dumps(row | {"settings": row["settings"] | {"streams": 1}}) + "\n" for row in found))
    assert main(command) == 0
    assert len(runs) == 3  # the set had fewer streams then
    assert "most common answer" in plot.read_text()


def test_a_row_tells_of_each_stream_and_what_chance_does_to_its_figures() -> None:
    chosen = next(s for s in SETS if s.name == "dense-1x")
    row = score(arm_model("tiny", "default"), [tokens(48), tokens(80)], replace(chosen, questions=20))
    streams = row["by_stream"]
    assert isinstance(streams, dict)
    assert list(streams) == ["dense-1x-0", "dense-1x-1"]
    assert sum(s["n"] for s in streams.values()) == row["n"] == 40
    mean, ninth_decile = row["calibration_error_if_exact"]  # type: ignore[misc]
    assert 0 < mean < ninth_decile < 1
    for name, (low, high) in row["intervals"].items():  # type: ignore[attr-defined]
        assert low <= row[name] <= high
    assert 0 < row["confident_n"] <= 40  # type: ignore[operator]


def test_the_plot_shows_the_default_and_its_bounds(tmp_path: Path) -> None:
    chosen = next(s for s in SETS if s.name == "sparse-16x")
    row = {"set": chosen.name, "answerable": 0.5, "low": 0.4, "high": 0.6, "settings": {"seconds": chosen.seconds}}
    write_plot(tmp_path / "plot.svg", [row | {"arm": arm} for arm in ("default", "network", "told", "oracle")])
    text = (tmp_path / "plot.svg").read_text()
    assert "the default, with events" in text
    assert text.count("<circle") == 2
    assert "oracle" not in text
