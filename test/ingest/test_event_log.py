"""The event log over the demo's recording: what it holds, restored bit for bit, forgotten, bounded."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import torch

from salmonn_node.answering.grounding import Grounding
from salmonn_node.ingest.observer import Observer
from salmonn_node.live.demo_recording import BAG
from salmonn_node.memory.event_log import EventLog, EventLogConfig
from salmonn_node.model.checkpoint import event_heads, load
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.replay.bag_stream import BagStream
from salmonn_node.stream.observations import SAMPLE_RATE_HZ, SECOND_NS, Interval

HALF = 900  # observations of the recording before the cut


def observations() -> Iterator[object]:
    stream = BagStream(BAG, grounding=Grounding())
    yield from (observation for _, observation in stream)
    stream.close()


@pytest.fixture(scope="module")
def model() -> VideoSalmonnS:
    model = load("tiny")
    model.event_log = EventLog(event_heads("tiny"), EventLogConfig(pictures=12, firsts=6, sound_bytes=200 << 10))
    return model


@pytest.fixture(scope="module")
def whole(model: VideoSalmonnS) -> Observer:
    observer = Observer(model, inline=True)
    for observation in observations():
        observer.submit(observation)
    observer.finish()
    return observer


def test_it_holds_sights_sounds_and_views_with_their_pictures(whole: Observer) -> None:
    log = whole.memory.log
    assert log is not None
    entries = log.entries()
    assert {entry.what for entry in entries} == {"sight", "sound", "view"}
    assert [e.first_ns for e in entries] == sorted(e.first_ns for e in entries)
    # The newest of alike pictures, and the first: a picture that is both stands once.
    views = [entry.first_ns for entry in entries if entry.what == "view"]
    assert 12 < len(views) == len(set(views)) <= 18
    assert views[0] < whole.start_ns + 10 * SECOND_NS
    for entry in entries:
        assert whole.start_ns <= entry.first_ns <= entry.last_ns <= whole.newest_ns + SECOND_NS
        if entry.what == "sight":
            assert entry.pictures
            assert all(entry.first_ns <= p.stamp_ns <= entry.last_ns for p in entry.pictures)
    assert log.nbytes == whole.memory.bytes_by_part()["log"] < 2 << 20


def test_the_sound_of_events_is_kept_within_its_bytes_until_it_has_words(model: VideoSalmonnS, whole: Observer) -> None:
    tensors, values = whole.to_state()
    observer = Observer(model, inline=True)
    observer.restore(tensors, values)
    log = observer.memory.log
    with_sound = [entry for entry in log.entries() if entry.sound is not None]
    assert with_sound
    assert {entry.what for entry in with_sound} == {"sound"}
    assert sum(entry.sound.nbytes for entry in with_sound) <= log.config.sound_bytes
    newest = with_sound[-1]
    assert abs(newest.sound.astype(float)).max() > 0
    assert SAMPLE_RATE_HZ // 2 < len(newest.sound) <= 9 * SAMPLE_RATE_HZ
    assert log.set_caption(newest.key, "says: hello")
    after = next(entry for entry in log.entries() if entry.key == newest.key)
    assert (after.sound, after.caption) == (None, "says: hello")
    # What is forgotten leaves no sound behind, in the clips or in the last half minute.
    observer.intake.forget(Interval(whole.start_ns, whole.newest_ns + SECOND_NS), None)
    assert observer.memory.log.to_tensors()[0]["clips.samples"].numel() == 0


def test_a_cut_changes_no_bit(model: VideoSalmonnS, whole: Observer) -> None:
    observer = Observer(model, inline=True)
    for number, observation in enumerate(observations()):
        if number == HALF:
            tensors, values = observer.to_state()
            evidence = observer.evidence
            observer = Observer(model, inline=True, evidence=evidence)
            observer.restore(tensors, json.loads(json.dumps(values)))
        observer.submit(observation)
    observer.finish()
    (mine, about), (theirs, told) = observer.memory.log.to_tensors(), whole.memory.log.to_tensors()
    assert about == told
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_words_stay_with_their_entry_and_forgetting_takes_both(model: VideoSalmonnS, whole: Observer) -> None:
    tensors, values = whole.to_state()
    observer = Observer(model, inline=True)
    observer.restore(tensors, values)
    log = observer.memory.log
    entry = next(e for e in log.entries() if e.what == "sight")
    assert log.set_caption(entry.key, "a red  mug\n" + "x" * 999)
    assert not log.set_caption("sight:99999", "nothing")
    assert next(e for e in log.entries() if e.key == entry.key).caption.startswith("a red mug x")
    assert len(log.captions[entry.key]) == log.config.caption_chars
    observer.intake.forget(Interval(entry.first_ns, entry.last_ns), None)
    log = observer.memory.log
    assert entry.key not in log.captions
    for left in log.entries():
        assert left.last_ns < entry.first_ns or left.first_ns > entry.last_ns
        assert not any(entry.first_ns <= p.stamp_ns <= entry.last_ns for p in left.pictures)


def test_pictures_are_bounded_in_bytes(model: VideoSalmonnS, whole: Observer) -> None:
    small = EventLogConfig(pictures=4, firsts=2, picture_bytes=20_000)
    own = load("tiny")
    own.event_log = EventLog(event_heads("tiny"), small)
    observer = Observer(own, inline=True)
    for observation in observations():
        observer.submit(observation)
    entries = observer.memory.log.entries()
    assert 4 <= sum(entry.what == "view" for entry in entries) <= 6
    ended = [e for e in entries if e.what != "view" and e.last_ns < observer.newest_ns - 10 * SECOND_NS]
    assert sum(len(p.jpeg) for e in ended for p in e.pictures) <= small.picture_bytes
    # The events are the same: only their pictures went.
    assert [e.key for e in entries if e.what == "sight"] == [
        e.key for e in whole.memory.log.entries() if e.what == "sight"
    ][: sum(e.what == "sight" for e in entries)]


def test_without_a_reader_outside_nothing_is_kept() -> None:
    observer = Observer(load("tiny"), inline=True)
    assert observer.memory.log is None
    assert "log" not in observer.memory.bytes_by_part()
