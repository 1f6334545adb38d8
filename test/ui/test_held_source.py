"""A recording and a stored memory as the page's sources: answers, timeline, moments, sound; nothing on disk changes."""

from __future__ import annotations

import hashlib
import io
import threading
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest

from salmonn_node.cli import main
from salmonn_node.live.demo_recording import BAG
from salmonn_node.model.network_settings import NetworkSettings
from salmonn_node.replay.job import JobSettings
from salmonn_node.replay.recorded_memory import cache_root
from salmonn_node.storage.snapshot import SnapshotError
from salmonn_node.stream.answers import AnswerType, ErrorCode, Question
from salmonn_node.stream.observations import SECOND_NS, Interval
from salmonn_node.ui.held_source import HeldSource
from salmonn_node.ui.opening import open_recording, open_stored
from salmonn_node.ui.source import RefusedError
from salmonn_node.ui.spectrogram import spectrogram

ASKED = Question("Have you seen a blue cross?", AnswerType.BINARY, timeout_s=60.0, want_thumbnails=True)


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bags") / "walk"
    assert main(["bag", "cut", str(BAG), str(folder), "--duration", "8"]) == 0
    return folder


@pytest.fixture(scope="module")
def recording(bag: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeldSource]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        with open_recording(bag, JobSettings(), False, lambda done_s, duration_s: None) as source:
            yield source


def ask(source: HeldSource) -> str:
    seen: list[str] = []
    answer = source.ask(ASKED, seen.append, threading.Event())
    assert answer.error_code == ErrorCode.NONE
    assert answer.evidence[0].thumbnail
    assert source.recent()[0].answer == answer
    return answer.text


def test_a_recording_is_asked_and_shows_what_it_holds(recording: HeldSource):
    assert ask(recording) == "yes"
    state, timeline = recording.state(), recording.timeline(None, 60, 100)
    assert state.facts is not None
    assert (state.reachable, state.facts.frames) == (True, 8)
    assert state.facts.reader == "internal: pictures stay in this process"
    rows = {row.source: row for row in timeline.rows}
    assert sum(rows["front"].kept_tokens) == state.facts.visual_tokens
    assert all(rows["front"].moments[:-1])
    assert timeline.path
    moment = recording.moment("front", state.facts.start_ns)
    assert moment.thumbnail.startswith(b"\xff\xd8")
    assert moment.pose is not None


def test_the_sound_of_an_interval_can_be_played_and_seen(recording: HeldSource):
    assert recording.abilities.sound
    start_ns = recording.origin_ns + 2 * SECOND_NS
    sound = recording.sound("mic", Interval(start_ns, start_ns + 3 * SECOND_NS))
    with wave.open(io.BytesIO(sound)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (16_000, 1, 48_000)
        assert any(file.readframes(48_000))
    assert spectrogram(sound).startswith(b"\x89PNG")
    with pytest.raises(RefusedError, match="no sound of attic"):
        recording.sound("attic", Interval(start_ns, start_ns + SECOND_NS))


def test_questions_come_one_after_another_and_can_be_canceled(recording: HeldSource):
    cancel = threading.Event()
    cancel.set()
    answer = recording.ask(ASKED, lambda text: None, cancel)
    assert answer.error_code == ErrorCode.CANCELED


def test_what_is_only_read_changes_nothing(recording: HeldSource):
    for change in (lambda: recording.forget(None), lambda: recording.save("x", True), lambda: recording.load("x")):
        with pytest.raises(RefusedError, match="only read"):
            change()
    assert not recording.abilities.change
    assert not recording.abilities.watch


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(("-shm", "-wal")))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_stored_memory_is_read_while_its_owner_holds_it(recording: HeldSource):
    """The recording's memory is stored as a node stores its own, and is open here."""
    root = cache_root()
    (name,) = (path.name for path in root.iterdir())
    before = contents(root)
    with open_stored(root, name, NetworkSettings()) as stored:
        assert ask(stored) == "yes"
        assert stored.timeline(None, 60, 100).rows == recording.timeline(None, 60, 100).rows
        assert not stored.abilities.sound
        with pytest.raises(RefusedError, match="not the sound itself"):
            stored.sound("mic", Interval(0, 1))
    assert contents(root) == before


def test_faults_of_stored_memories_are_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="salmonn memory ls"), open_stored(tmp_path, "none", NetworkSettings()):
        pass
    with pytest.raises(ValueError, match="letters"), open_stored(tmp_path, "../up", NetworkSettings()):
        pass
    (tmp_path / "broken" / "snapshots" / "00000001").mkdir(parents=True)
    with pytest.raises(SnapshotError), open_stored(tmp_path, "broken", NetworkSettings()):
        pass
