"""A part of a recording: stretches give the whole, what holds in them is known, topics are taken by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay.bags import START_NS, write_bag

from salmonn_node.answering.grounding import Grounding
from salmonn_node.cli import main
from salmonn_node.live.demo_recording import BAG, QUESTIONS
from salmonn_node.replay.bag import Bag
from salmonn_node.replay.bag_stream import BagStream
from salmonn_node.replay.recording_files import BagError
from salmonn_node.replay.recording_part import RecordingPart
from salmonn_node.stream.observations import SECOND_NS, AudioChunk, EncodedFrame

SECONDS = 6.0


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag(tmp_path_factory.mktemp("bags") / "walk", seconds=SECONDS)


def observed(bag: Path, part: RecordingPart) -> list[tuple[int, Any, int]]:
    with BagStream(bag, part=part) as stream:
        return [(log_ns, type(item), item.stamp_ns) for log_ns, item in stream]


@given(st.floats(0.1, 2.8), st.floats(0.1, 2.8))
@settings(max_examples=10, deadline=None)
def test_stretches_put_together_are_the_whole(bag: Path, first: float, second: float):
    parts = [RecordingPart(0.0, first), RecordingPart(first, second), RecordingPart(first + second)]
    assert [item for part in parts for item in observed(bag, part)] == observed(bag, RecordingPart())


def test_what_was_said_before_the_stretch_and_still_holds_is_known():
    def known(part: RecordingPart) -> tuple[bool, int, int]:
        grounding = Grounding()
        with BagStream(BAG, grounding=grounding, part=part) as stream:
            frames = sum(isinstance(item, EncodedFrame) for _, item in stream)
            assert not stream.report.differences(), "what the whole bag promises says nothing of a stretch"
            camera = grounding.cameras.at("front", stream.start_ns)
            return camera is not None, len(grounding.frames.frames), frames

    whole, part = known(RecordingPart()), known(RecordingPart(20.0, 2.0))
    assert part[0]
    assert part[1] == whole[1], "static transforms"
    assert part[2] == 6


def test_topics_are_taken_and_left_out_by_name(bag: Path):
    kinds = {kind for _, kind, _ in observed(bag, RecordingPart(exclude_topics=("/mic/audio", "/pose")))}
    assert kinds == {EncodedFrame}
    with BagStream(bag, part=RecordingPart(topics=("/mic/audio", "/pose"), exclude_topics=("/pose",))) as stream:
        assert {type(item) for _, item in stream} == {AudioChunk}
        assert "left out by --topics or --exclude-topics: /front/image/compressed, /pose" in stream.report.notes
    with pytest.raises(BagError, match="no such topic in the bag: /nose; it has: /front/image/compressed"):
        BagStream(bag, part=RecordingPart(topics=("/nose",)))
    with pytest.raises(BagError, match=r"--start-offset 100 s lies behind the end, after 5.9 s|after 6.0 s"):
        BagStream(bag, part=RecordingPart(100.0))


@pytest.mark.parametrize("number", ["-1", "nan", "inf"])
def test_times_that_are_none_are_refused_by_name(number: str, capsys: pytest.CaptureFixture[str]):
    arguments = ["replay", str(BAG), "--questions", str(QUESTIONS), f"--start-offset={number}"]
    assert main(arguments) == 2
    assert "--start-offset: expected seconds, 0 or more" in capsys.readouterr().out


def test_the_command_reads_a_part_and_writes_it_on_the_timeline(bag: Path, tmp_path: Path):
    questions = tmp_path / "q.jsonl"
    row = {"id": "q", "ask_ns": START_NS + 4 * SECOND_NS, "text": "Did you see a light room?", "answer_type": "BINARY"}
    questions.write_text(json.dumps(row | {"answerable": False}) + "\n")
    arguments = ["replay", str(bag), "--questions", str(questions), "--output", str(tmp_path / "out")]
    arguments += ["--start-offset", "2", "--playback-duration", "3", "--exclude-topics", "/mic/audio"]
    assert main([*arguments, "--mcap", str(tmp_path / "part.mcap")]) == 0
    recording = json.loads((tmp_path / "out/scores.json").read_text())["default"]["recordings"]["walk"]
    assert recording["topics"]["/front/image/compressed"]["read"] == 3
    assert "/mic/audio" not in recording["topics"]
    assert "a stretch is read: 3.0 s from 2.0 s on" in " ".join(recording["warnings"])
    with Bag(tmp_path / "part.mcap") as part:
        held = {topic.name: topic.count for topic in part.topics}
        assert part.start_ns >= START_NS + 2 * SECOND_NS
    assert held["/front/image/compressed"] == 3
    assert "/mic/audio" not in held
    assert main([*arguments, "--live"]) == 2
