"""Questions, answers and pictures go into a datasets folder and come back the same, whatever they hold."""

from __future__ import annotations

import json
import math
import os
import string
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from salmonn_node.cli import main
from salmonn_node.evaluation.answer_file import Answered, read_answers, write_answers
from salmonn_node.evaluation.dataset_folder import PARQUET, DatasetRow, read_dataset, write_dataset
from salmonn_node.evaluation.questions import EvidenceInterval, Expected, QuestionRecord, Tolerance, read_questions
from salmonn_node.live.demo_recording import QUESTIONS
from salmonn_node.replay.job_pictures import save_pictures
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Evidence, Outcome, Region
from salmonn_node.stream.observations import Interval

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
STAMP = st.integers(0, 2**63 - 1)
NUMBER = st.floats(-1e9, 1e9)
JPEG = b"\xff\xd8\xff\xe0 a picture \xff\xd9"


@st.composite
def intervals(draw: st.DrawFn) -> tuple[int, int]:
    start, end = sorted((draw(STAMP), draw(STAMP)))
    return start, end


@st.composite
def records(draw: st.DrawFn, number: int = 0) -> QuestionRecord:
    evidence = tuple(
        EvidenceInterval(start_ns=a, end_ns=b, modality=draw(st.sampled_from(["vision", "audio"])))
        for a, b in draw(st.lists(intervals(), max_size=3))
    )
    kind = draw(st.sampled_from(["TEXT", "BINARY", "POSITION", "TIME", "DURATION", "COUNT", "CHOICE"]))
    choices = tuple(draw(st.lists(TEXT, min_size=2, max_size=4))) if kind == "CHOICE" else ()
    expected = Expected(
        text=draw(st.text(string.ascii_letters, min_size=1, max_size=8)),
        accepted=tuple(draw(st.lists(TEXT, max_size=2))),
        vocabulary=tuple(draw(st.lists(TEXT, max_size=2))),
        binary=draw(st.booleans()),
        choice_index=draw(st.integers(0, len(choices) - 1)) if choices else None,
        count=draw(st.integers(-(2**63), 2**63 - 1)),
        position_m=draw(st.tuples(NUMBER, NUMBER, NUMBER)),
        frame_id=draw(TEXT),
        map_id=draw(TEXT),
        pose_kind=draw(st.sampled_from(["OBSERVER", "OBJECT"])),
        event_start_ns=draw(STAMP),
        event_end_ns=draw(st.none() | STAMP),
        duration_s=draw(NUMBER),
    )
    answerable = not evidence or draw(st.just(True))
    return QuestionRecord(
        id=f"{number}{draw(TEXT)}",
        stream=draw(TEXT),
        ask_ns=draw(st.integers(1, 2**63 - 1)),
        text=draw(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)),
        kind=draw(st.sampled_from(["existence", "order", "other"])),
        answer_type=kind,
        choices=choices,
        answerable=answerable,
        expected=expected,
        tolerance=Tolerance(position_m=draw(st.floats(1e-6, 1e6)), duration_fraction=draw(st.floats(0, 1e6))),
        evidence=evidence,
        needs_all=draw(st.booleans()),
        near_miss=draw(TEXT),
        stream_s=draw(NUMBER),
        phrasing=draw(TEXT),
        pixels=draw(st.floats(0, 1)),
        snr_db=draw(st.none() | NUMBER),
        about=draw(st.dictionaries(TEXT, TEXT | st.integers(-(2**53), 2**53) | NUMBER | st.booleans(), max_size=3)),
    )


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    evidence = tuple(
        Evidence(
            Interval(*draw(intervals())),
            draw(st.sampled_from(["vision", "audio"])),
            draw(TEXT),
            draw(TEXT),
            draw(st.floats(0, 1)),
            thumbnail=draw(st.sampled_from([b"", JPEG, b"\xff\xd8other"])),
            region=draw(st.none() | st.just(Region(1, 2, 3, 4, 64, 48))),
        )
        for _ in range(draw(st.integers(0, 3)))
    )
    return Answer(
        error_code=draw(st.sampled_from(ErrorCode)),
        error_msg=draw(TEXT),
        outcome=draw(st.sampled_from(Outcome)),
        answer_type=draw(st.sampled_from(AnswerType)),
        text=draw(TEXT),
        count=draw(st.integers(0, 2**32 - 1)),
        duration_s=draw(st.floats(0, 1e6)),
        event=draw(st.none() | intervals().map(lambda pair: Interval(*pair))),
        confidence=draw(st.floats(0, 1)),
        evidence=evidence,
        map_id=draw(TEXT),
    )


@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_whatever_is_written_comes_back(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    rows = []
    for number in range(data.draw(st.integers(1, 3))):
        record = data.draw(records(number))
        answer = data.draw(st.none() | answers())
        rows.append(DatasetRow(record, None if answer is None else Answered(record.id, record.stream, answer)))
    folder = tmp_path_factory.mktemp("set") / "set"

    assert write_dataset(folder, rows) == len(rows)

    assert list(read_dataset(folder)) == rows


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """The demo's questions with three answers of a replay, one of them with a picture, exported by the command."""
    job = tmp_path / "out" / "default" / "demo"
    job.mkdir(parents=True)
    picture = Evidence(Interval(1, 2), "vision", "front", "optical", 0.5, thumbnail=JPEG)
    given_answers = [
        Answered("demo-00", "demo", Answer(answer_type=AnswerType.BINARY, binary=True, evidence=(picture,))),
        Answered("demo-01", "demo", Answer(outcome=Outcome.NOT_OBSERVED)),
        Answered("demo-05", "demo", Answer(answer_type=AnswerType.COUNT, count=3)),
    ]
    write_answers(job / "answers.jsonl", given_answers)
    for answered in given_answers:
        save_pictures(job, answered)
    arguments = [
        "questions",
        "export",
        str(QUESTIONS),
        str(tmp_path / "set"),
        "--answers",
        str(tmp_path / "out/default"),
    ]
    assert main(arguments) == 0
    return tmp_path / "set"


def test_the_command_exports_and_imports(exported: Path, tmp_path: Path):
    questions, answered = tmp_path / "back.jsonl", tmp_path / "back"
    assert main(["questions", "import", str(exported), "--output", str(questions), "--answers", str(answered)]) == 0
    assert read_questions(questions) == read_questions(QUESTIONS)
    before = tmp_path / "out/default/demo/answers.jsonl"
    assert list(read_answers(answered / "answers.jsonl")) == list(read_answers(before))
    assert [f.name for f in (answered / "evidence").iterdir()] == [
        f.name for f in (before.parent / "evidence").iterdir()
    ]


def test_what_is_there_is_not_overwritten_and_what_is_none_is_named(exported: Path, tmp_path: Path, capsys):
    before = (exported / PARQUET).read_bytes()
    assert main(["questions", "export", str(QUESTIONS), str(exported)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (exported / PARQUET).read_bytes() == before
    (tmp_path / "no.parquet").write_bytes(b"PAR1 no table")
    assert main(["questions", "import", str(tmp_path / "no.parquet"), "--output", str(tmp_path / "q.jsonl")]) == 2
    assert "cannot be read as Parquet" in capsys.readouterr().err
    assert main(["questions", "export", str(QUESTIONS), str(tmp_path / "s"), "--answers", str(tmp_path / "none")]) == 2
    assert "no answers.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
    record = read_questions(QUESTIONS)[0].model_copy(update={"ask_ns": 2**70})
    with pytest.raises(ValueError, match="demo-00"):
        write_dataset(tmp_path / "s", [DatasetRow(record)])
    assert not (tmp_path / "s").exists()


LOAD = """
import json, sys
from datasets import Image, load_dataset
loaded = load_dataset(sys.argv[1], split="test")
kind = loaded.features["pictures"]
rows = loaded.cast_column("pictures", type(kind)(Image(decode=False))).to_list()
print(json.dumps({"image": "Image" in repr(kind), "rows": rows}, default=lambda value: value.hex()))
"""


@pytest.mark.full
def test_hugging_face_datasets_loads_it(exported: Path, tmp_path: Path):
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", LOAD, str(exported)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["image"]
    assert [row["id"] for row in said["rows"]] == [record.id for record in read_questions(QUESTIONS)]
    first = said["rows"][0]
    assert bytes.fromhex(first["pictures"][0]["bytes"]) == JPEG
    assert (first["correct"], first["answer_text"]) == (True, "yes")
    assert first["evidence"][0]["start_ns"] == read_questions(QUESTIONS)[0].evidence[0].start_ns
    assert not math.isnan(first["tolerance"]["position_m"])
