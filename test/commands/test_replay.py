"""`salmonn replay` end to end on real bags with the bundled network: same bytes twice, resumes, gates, names faults."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from replay.bags import START_NS, only_file, write_bag

from salmonn_node.cli import main
from salmonn_node.evaluation.questions import EvidenceInterval, Expected, QuestionRecord, write_questions
from salmonn_node.model.checkpoint import BUNDLED, TINY
from salmonn_node.model.network_settings import NetworkSettings
from salmonn_node.model.own_calibration import CALIBRATION
from salmonn_node.replay.job import Job, JobSettings, run_job
from salmonn_node.stream.observations import SECOND_NS


def records(seconds: list[float]) -> list[QuestionRecord]:
    return [
        QuestionRecord(
            id=f"q{i}",
            ask_ns=START_NS + round(second * SECOND_NS),
            text="Did you see a light room?",
            kind="existence",
            answer_type="BINARY",
            expected=Expected(binary=True),
            evidence=(EvidenceInterval(start_ns=START_NS, end_ns=START_NS + SECOND_NS),),
        )
        for i, second in enumerate(seconds)
    ]


@pytest.fixture(scope="module")
def bag(tmp_path_factory) -> Path:
    return write_bag(tmp_path_factory.mktemp("bags") / "walk", seconds=12)


def replay(bag: Path, folder: Path, *more: str, questions: list[QuestionRecord] | None = None) -> int:
    file = folder / "questions.jsonl"
    folder.mkdir(exist_ok=True)
    write_questions(file, questions or records([4.0, 11.5]))
    return main(["replay", str(bag), "--questions", str(file), "--output", str(folder / "out"), *more])


def test_the_same_recording_gives_the_same_bytes_and_a_gate(bag, tmp_path):
    assert replay(bag, tmp_path / "one") == 0
    assert replay(bag, tmp_path / "two", "--min-accuracy", "1.0") in (0, 1)
    one, two = (tmp_path / name / "out" / "default" / "walk" / "answers.jsonl" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    scores = json.loads((tmp_path / "one" / "out" / "scores.json").read_text())
    assert scores["default"]["all"]["n"] == 2
    assert scores["default"]["all"]["kept"] == 1.0, "two seconds of twelve are not forgotten"
    page = (tmp_path / "one" / "out" / "report.html").read_text()
    assert "What the memory held then" in page


def test_an_interrupted_job_goes_on_where_it_was_with_the_same_bytes(bag, tmp_path):
    questions = tuple(records([2.0, 6.0, 11.5]))
    whole = run_job(Job(bag, questions, JobSettings(), tmp_path / "whole"))
    job = Job(bag, questions, JobSettings(), tmp_path / "cut")
    seen = []
    first = run_job(job, lambda progress, _: seen.append(progress.answered), lambda: bool(seen) and seen[-1] >= 1)
    assert first.interrupted
    assert 1 <= len(first.answers) < 3
    again = run_job(job)
    assert not again.interrupted
    assert any("of an earlier, interrupted run" in note for note in again.notes)
    assert len(again.timings) == 3 - len(first.answers)
    assert [a.id for a in again.answers] == [a.id for a in whole.answers]
    assert (tmp_path / "whole" / "answers.jsonl").read_bytes() == (tmp_path / "cut" / "answers.jsonl").read_bytes()


def test_answers_of_other_weights_of_the_same_name_are_not_taken_over(bag, tmp_path):
    weights = tmp_path / "weights"
    shutil.copytree(BUNDLED / TINY, weights)
    job = Job(
        bag, tuple(records([1.0])), JobSettings(network=NetworkSettings(checkpoint=str(weights))), tmp_path / "out"
    )
    assert len(run_job(job).timings) == 1
    assert len(run_job(job).timings) == 0
    (weights / CALIBRATION).unlink()
    assert len(run_job(job).timings) == 1


def test_answers_of_other_code_are_told_and_asked_again(bag, tmp_path):
    job = Job(bag, tuple(records([4.0])), JobSettings(), tmp_path / "job")
    assert not any("asked again" in warning for warning in run_job(job).warnings)
    made = json.loads((job.folder / "job.json").read_text())
    (job.folder / "job.json").write_text(json.dumps({**made, "code": "0.0.9+0123456789ab"}))
    again = run_job(job)
    assert len(again.timings) == 1
    assert any("are of 0.0.9+0123456789ab" in warning and made["code"] in warning for warning in again.warnings)
    assert run_job(job).timings == {}
    old = {name: value for name, value in made.items() if name != "code"}
    (job.folder / "job.json").write_text(json.dumps(old))
    assert any("an unknown version" in warning for warning in run_job(job).warnings)


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000], ids=lambda text: text[:10])
def test_a_record_of_an_earlier_run_that_is_damaged_counts_as_none(bag, tmp_path, text):
    job = Job(bag, tuple(records([1.0])), JobSettings(), tmp_path / "job")
    job.folder.mkdir()
    (job.folder / "job.json").write_text(text)
    (job.folder / "answers.jsonl").write_text("")
    result = run_job(job)
    assert result.error == ""
    assert len(result.timings) == 1
    assert run_job(job).timings == {}


def test_a_damaged_bag_and_a_late_question_do_not_stop_the_rest(bag, tmp_path, capsys):
    broken = tmp_path / "broken.mcap"
    broken.write_bytes(b"no bag")
    late = records([3.0, 4_000.0])
    file = tmp_path / "questions.jsonl"
    write_questions(file, late)
    with file.open("a") as lines:
        lines.write('{"id": "bad", "ask_ns": -1, "text": "?"}\n{oops\n')
    code = main(["replay", str(bag), str(broken), "--questions", str(file), "--output", str(tmp_path / "out")])
    said = capsys.readouterr().out.replace("\n", " ")
    assert code == 2
    assert "questions.jsonl:3: ask_ns" in said
    assert "questions.jsonl:4: not JSON" in said
    assert "broken (default) was not replayed" in said
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())["default"]
    assert scores["all"]["n"] == 4
    assert scores["errors"] == {"NO_ANSWER": 2}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "behind the end of the stream" in page


def test_several_recordings_end_with_a_line_for_each(bag, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    broken, other = tmp_path / "broken.mcap", tmp_path / "other"
    broken.write_bytes(b"no recording")
    shutil.copytree(bag, other)
    file = tmp_path / "questions.jsonl"
    write_questions(file, records([4.0, 11.5]))
    paths = [str(path) for path in (bag, broken, other)]
    assert main(["replay", *paths, "--questions", str(file), "--output", str(tmp_path / "out")]) == 2
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    table = {line[0]: line[1:] for line in lines if len(line) == 9}
    assert table["walk"][1:4] == table["other"][1:4] == ["12", "12", "s"]
    read, promised = table["walk"][0].split("/")
    assert read == promised
    assert table["broken"][-1] == "failed"


def test_without_the_packages_of_the_report_the_scores_are_there_and_the_extra_is_named(
    bag, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    assert replay(bag, tmp_path / "plain") == 0
    said = capsys.readouterr().out.replace("\n", "")
    assert "pip install 'salmonn_node[report]'" in said
    assert (tmp_path / "plain" / "out" / "scores.json").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--arms", "magic"], "'magic' is none of"),
        (["--min-accuracy", "7"], "expected 0..1"),
    ],
)
def test_bad_arguments_are_refused_by_name(bag, tmp_path, capsys, arguments, reason):
    assert replay(bag, tmp_path / "x", *arguments) == 2
    assert reason in capsys.readouterr().out


def test_a_question_file_without_a_question_is_refused(bag, tmp_path, capsys):
    file = tmp_path / "empty.jsonl"
    file.write_text("\n")
    assert main(["replay", str(bag), "--questions", str(file)]) == 2
    assert "holds no question" in capsys.readouterr().out


def test_a_truncated_bag_still_counts(bag, tmp_path):
    cut = tmp_path / "walk.mcap"
    cut.write_bytes(only_file(bag).read_bytes()[:-50])
    result = run_job(Job(cut, tuple(records([11.5])), JobSettings(), tmp_path / "cut"))
    assert not result.error
    assert any("its end is cut off" in note for note in result.warnings)
    assert len(result.answers) == 1


def test_arms_say_how_a_memory_is_kept_and_read():
    from salmonn_node.evaluation.arms import arm_names
    from salmonn_node.replay.network import build

    assert arm_names("default,place+hf,default+cached,fifo+exact") == [
        "default",
        "place+hf",
        "default+cached",
        "fifo+exact",
    ]
    observer, _ = build(NetworkSettings(), "fifo+cached", 1.0)
    config = observer.model.config
    assert (config.memory.visual_rule, config.ttt, config.prefill) == ("fifo", None, "cached")


def test_what_was_not_read_is_told_on_the_terminal_in_the_report_and_in_the_scores(bag, tmp_path, capsys):
    short = tmp_path / "walk"
    shutil.copytree(bag, short)
    text = (short / "metadata.yaml").read_text()
    assert text.count("message_count: 120") == 1
    (short / "metadata.yaml").write_text(text.replace("message_count: 120", "message_count: 150"))
    assert replay(short, tmp_path / "out") == 0
    line = "walk: /pose: 120 messages read, 150 promised"
    assert line in capsys.readouterr().out
    out = tmp_path / "out" / "out"
    recording = json.loads((out / "scores.json").read_text())["default"]["recordings"]["walk"]
    assert recording["topics"]["/pose"] == {"promised": 150, "read": 120, "used": 120, "left_out": {}}
    assert recording["topics"]["/mic/audio"]["read"] == recording["topics"]["/mic/audio"]["promised"] == 24
    assert line.removeprefix("walk: ") in recording["warnings"]
    assert "120 messages read, 150 promised" in (out / "report.html").read_text()


def test_a_recording_of_which_nothing_was_taken_in_is_a_failure(tmp_path, capsys):
    unstamped = write_bag(tmp_path / "unstamped", sound=False, stamps=[0, 0, 0])
    assert replay(unstamped, tmp_path / "out", questions=records([1.0])) == 2
    said = capsys.readouterr().out
    assert "unstamped (default) was not replayed: nothing of it was taken in" in said
    assert "/front/image/compressed: 3 of 3 messages left out, stamp_zero" in said
