"""An evaluation as one MCAP file: the recording copied raw, answers, evidence and status beside it, or no file."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from salmonn_node.cli import main
from salmonn_node.evaluation.answer_file import Answered
from salmonn_node.evaluation.questions import read_questions, write_questions
from salmonn_node.live.demo_recording import BAG, QUESTIONS
from salmonn_node.messages.base import message_stamp_ns, stamp_ns
from salmonn_node.replay import evaluation_mcap
from salmonn_node.replay.bag import Bag
from salmonn_node.replay.evaluation_mcap import write_evaluation
from salmonn_node.replay.evaluation_topics import Evaluation
from salmonn_node.stream.answers import Answer
from salmonn_node.stream.observations import SECOND_NS

COUNTED = "demo-05"  # by ear; the right answer is 2
ASKED = ("demo-00", COUNTED, "demo-08")  # seen, counted, seen when heard


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three of the demo's questions, each asked at its own time; of one a wrong answer is expected."""
    file = tmp_path_factory.mktemp("questions") / "questions.jsonl"
    records = [
        q.model_copy(update={"expected": q.expected.model_copy(update={"count": 3})}) if q.id == COUNTED else q
        for q in read_questions(QUESTIONS)
        if q.id in ASKED
    ]
    write_questions(
        file, [q.model_copy(update={"ask_ns": q.ask_ns - i * SECOND_NS}) for i, q in enumerate(reversed(records))]
    )
    return file


def replay(questions: Path, folder: Path, *more: str) -> int:
    return main(["replay", str(BAG), "--questions", str(questions), "--output", str(folder / "out"), *more])


@pytest.fixture(scope="module")
def written(questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    assert replay(questions, folder, "--mcap", str(folder / "evaluation.mcap")) == 0
    return folder / "evaluation.mcap"


def messages(path: Path) -> dict[str, list[tuple[int, Any]]]:
    """Messages of a file by topic, decoded by rosbags with the file's own definitions alone."""
    found: dict[str, list[tuple[int, Any]]] = defaultdict(list)
    with AnyReader([path], default_typestore=get_typestore(Stores.EMPTY)) as reader:
        for connection, log_ns, raw in reader.messages():
            found[connection.topic].append((log_ns, reader.deserialize(raw, connection.msgtype)))
    return found


def test_the_recording_is_copied_raw_and_in_order(written: Path):
    with Bag(BAG) as original, Bag(written) as copy:
        before = list(original.raw())
        after = list(copy.raw(topics=original.channels))
        assert not copy.notes
        for topic in original.channels:
            assert copy.channels[topic].definition == original.channels[topic].definition
            assert copy.channels[topic].latched == original.channels[topic].latched
    assert after == before
    with written.open("rb") as file:
        reader = make_reader(file)
        summary = reader.get_summary()
        times = [message.log_time for _, _, message in reader.iter_messages(log_time_order=False)]
    assert summary is not None
    assert summary.statistics is not None
    assert summary.statistics.message_count == len(times)
    assert times == sorted(times)
    assert not list(written.parent.glob(".*")), "nothing but the file is left"


def test_what_the_memory_said_stands_at_its_time(written: Path, questions: Path):
    records = sorted(read_questions(questions), key=lambda record: record.ask_ns)
    found = messages(written)
    dialogues = found["/salmonn/answers"]
    assert [m.question.text for _, m in dialogues] == [record.text for record in records]
    assert [message_stamp_ns(m) for _, m in dialogues] == [record.ask_ns for record in records]
    with Bag(BAG) as bag:
        for log_ns, message in dialogues:
            # The recorder's time: what is stamped up to the question had come by then.
            assert 0 <= log_ns - message_stamp_ns(message) < SECOND_NS
            assert log_ns <= bag.end_ns
    rows = [json.loads(line) for line in (written.parent / "out/default/bag/answers.jsonl").read_text().splitlines()]
    assert [m.answer.text for _, m in dialogues] == [row["answer"]["text"] for row in rows]
    assert [m.msg.partition(":")[0] for _, m in found["/salmonn/verdicts"]].count("wrong") == 1
    assert {m.level for _, m in found["/salmonn/verdicts"]} == {20, 30}
    assert any("(expected: 3)" in m.msg for _, m in found["/salmonn/verdicts"])

    statuses = found["/salmonn/memory_status"]
    seconds = [log_ns for log_ns, _ in statuses]
    assert 80 <= len(statuses) <= 86
    assert all(later - earlier >= SECOND_NS for earlier, later in zip(seconds, seconds[1:-1], strict=False))
    assert [stamp_ns(m.stamp) for _, m in statuses] == seconds
    frames = [m.frames for _, m in statuses]
    assert frames == sorted(frames)
    assert frames[-1] == 84
    assert statuses[-1][1].checkpoint_trained


def test_the_picture_of_the_evidence_has_its_annotation(written: Path):
    found = messages(written)
    pictures, drawn = found["/salmonn/evidence_image/compressed"], found["/salmonn/evidence_annotations"]
    assert len(pictures) == len(drawn) >= 1
    answered = dict(found["/salmonn/answers"])
    boxes = 0
    for (log_ns, picture), (drawn_ns, annotation) in zip(pictures, drawn, strict=True):
        evidence = next(e for e in answered[log_ns].answer.evidence if len(e.thumbnail.data))
        assert drawn_ns == log_ns
        assert bytes(picture.data) == bytes(evidence.thumbnail.data)
        assert message_stamp_ns(picture) == stamp_ns(evidence.header.stamp) < log_ns
        assert {stamp_ns(item.timestamp) for item in [*annotation.points, *annotation.texts]} == {
            message_stamp_ns(picture)
        }
        height, width = cv2.imdecode(np.frombuffer(picture.data, np.uint8), cv2.IMREAD_COLOR).shape[:2]
        for box in annotation.points:
            boxes += 1
            assert all(0 <= point.x <= width and 0 <= point.y <= height for point in box.points)
            share = (box.points[2].x - box.points[0].x) / width
            assert share == pytest.approx(evidence.region.width / evidence.picture_width)
    assert boxes
    markers = found["/salmonn/evidence_markers"][-1][1].markers
    assert markers[0].action == 3
    assert any(marker.text for marker in markers)


def test_bag_info_reads_it_and_evidence_is_no_camera(written: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["bag", "info", str(written)]) == 0
    said = capsys.readouterr().out
    assert "/salmonn/answers" in said
    assert "/salmonn/evidence_image/compressed is not used: it shows the evidence of answers" in said


def test_the_same_replay_gives_the_same_bytes_also_when_its_answers_were_there(
    written: Path, questions: Path, tmp_path: Path
):
    again = tmp_path / "again.mcap"
    assert replay(questions, written.parent, "--mcap", str(again)) == 0
    assert again.read_bytes() == written.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--mcap", "{written}"], "exists already; name a file that does not"),
        (["--mcap", "{folder}/evaluation.db3"], "must end with .mcap"),
        (["--mcap", "{folder}/e.mcap", "--arms", "default,fifo"], "got 2: each recording with each of --arms is one"),
        (["--mcap", "{folder}/e.mcap", "--live"], "got a live replay"),
    ],
)
def test_what_could_not_be_written_is_refused_before_the_replay(
    written: Path, questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments, reason
):
    before = written.read_bytes()
    assert replay(questions, tmp_path, *(a.format(written=written, folder=tmp_path) for a in arguments)) == 2
    assert reason in capsys.readouterr().out.replace("\n", " ")
    assert written.read_bytes() == before
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Full(evaluation_mcap.Writer):
        def finish(self) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(evaluation_mcap, "Writer", Full)
    with pytest.raises(OSError, match="No space left"):
        write_evaluation(tmp_path / "e.mcap", BAG, Evaluation({}, [], [], "x", True, 0))
    assert not list(tmp_path.iterdir())


def test_topics_of_a_recorded_node_are_not_mixed_with_the_replays(written: Path, tmp_path: Path):
    record = read_questions(QUESTIONS)[0]
    with Bag(written) as bag:
        at = bag.end_ns
        earlier = Counter(topic for topic, *_ in bag.raw())
    evaluation = Evaluation({record.id: record}, [(at, Answered(record.id, "", Answer(text="yes")))], [], "x", True, 0)
    notes = write_evaluation(tmp_path / "e.mcap", written, evaluation)
    assert any("are under /salmonn_replay" in note for note in notes)
    with Bag(tmp_path / "e.mcap") as bag:
        later = Counter(topic for topic, *_ in bag.raw())
    assert later - earlier == {"/salmonn_replay/answers": 1, "/salmonn_replay/verdicts": 1}
