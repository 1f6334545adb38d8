"""Bounds of the audio timeline to the nanosecond: gaps, refusals, repeats, channels, and where a span may begin."""

from __future__ import annotations

import numpy as np
import pytest

from salmonn_node.stream.audio_timeline import AudioFate, AudioTimeline
from salmonn_node.stream.observations import SECOND_NS as S
from salmonn_node.stream.observations import AudioChunk, AudioSpan

START = 1_000 * S
RATE = 16_000
MS = S // 1000
TENTH = RATE // 10


def noise(num: int = TENTH, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.9, 0.9, num).astype(np.float32)


def chunk(stamp_ns: int, samples: np.ndarray | None = None, rate_hz: int = RATE, frame_id: str = "ear") -> AudioChunk:
    return AudioChunk(stamp_ns, "mic", noise() if samples is None else samples, rate_hz, frame_id)


def heard(seconds: float = 1.0, start_ns: int = START, **settings: float) -> tuple[AudioTimeline, list[AudioSpan]]:
    """A timeline that took sound in from `start_ns`, in tenths of a second."""
    timeline, spans = AudioTimeline("mic", **settings), []  # type: ignore[arg-type]
    for number in range(round(10 * seconds)):
        fate, ready = timeline.push(chunk(start_ns + number * 100 * MS, noise(seed=number)))
        assert fate is AudioFate.TAKEN
        spans += ready
    return timeline, spans


def follow(timeline: AudioTimeline, from_ns: int, tenths: int = 5) -> list[AudioSpan]:
    spans = []
    for number in range(tenths):
        fate, ready = timeline.push(chunk(from_ns + number * 100 * MS, noise(seed=99 + number)))
        assert fate is AudioFate.TAKEN
        spans += ready
    return spans


@pytest.mark.parametrize(("max_gap_s", "jitter_s"), [(1.0, -0.001), (1.0, 1.001), (-1.0, 0.0), (0.03, 0.04)])
def test_settings_that_do_not_fit_are_named(max_gap_s: float, jitter_s: float) -> None:
    with pytest.raises(ValueError, match=f"0..max_gap_s, got jitter_s={jitter_s}, max_gap_s={max_gap_s}"):
        AudioTimeline("mic", max_gap_s=max_gap_s, jitter_s=jitter_s)


def test_settings_at_their_ends_are_taken() -> None:
    for max_gap_s, jitter_s in ((0.0, 0.0), (1.0, 1.0), (1.0, 0.0)):
        timeline = AudioTimeline("mic", max_gap_s=max_gap_s, jitter_s=jitter_s)
        assert (timeline.source, timeline.silence_s, timeline.counts, timeline.end_ns) == ("mic", 0.0, {}, 0)


@pytest.mark.parametrize(
    ("settings", "gap_ns", "filled"),
    [({}, S, True), ({}, S + 1, False), ({"max_gap_s": 0.5}, S // 2, True), ({"max_gap_s": 0.5}, S // 2 + 1, False)],
)
def test_a_gap_of_up_to_the_longest_becomes_silence(settings: dict[str, float], gap_ns: int, filled: bool) -> None:
    timeline, spans = heard(2.0, **settings)
    spans += follow(timeline, START + 2 * S + gap_ns) + timeline.finish()
    assert timeline.counts == ({"spans_started": 1, "gaps_filled": 1} if filled else {"spans_started": 2})
    assert timeline.silence_s == (gap_ns / S if filled else 0.0)
    silent = sum(int((span.samples == 0).sum()) for span in spans)
    assert silent == (gap_ns * RATE // S if filled else 0)
    assert spans[-1].end_ns == START + 2 * S + gap_ns + S // 2
    if not filled:
        assert [b.start_ns - a.end_ns for a, b in zip(spans, spans[1:], strict=False)].count(gap_ns) == 1
    second = START + 2 * S + gap_ns
    assert any(span.start_ns <= second < span.end_ns for span in spans)


@pytest.mark.parametrize(
    ("jitter_s", "jump_ms", "is_gap"), [(0.04, 60, True), (0.04, 40, False), (0.1, 95, False), (0.1, 130, True)]
)
def test_a_jump_of_more_than_the_jitter_is_a_gap(jitter_s: float, jump_ms: int, is_gap: bool) -> None:
    timeline, _ = heard(2.0, jitter_s=jitter_s)
    follow(timeline, START + 2 * S + jump_ms * MS, 10)
    timeline.finish()
    assert timeline.counts["gaps_filled"] == is_gap
    assert (timeline.silence_s == pytest.approx(jump_ms / 1000)) == is_gap


def test_a_gap_is_decided_after_two_tenths_of_sound() -> None:
    timeline, _ = heard(2.0)
    assert follow(timeline, START + 3 * S, 2) == [], "it waits: the count may catch up"
    assert timeline.end_ns == START + 2 * S + 200 * MS, "as if no sound were missing"
    spans = follow(timeline, START + 3 * S + 200 * MS, 1)
    assert timeline.counts["gaps_filled"] == 1
    assert sum(len(span.samples) for span in spans) > RATE
    assert timeline.end_ns == START + 3 * S + 300 * MS


def test_sound_of_five_seconds_ago_is_not_taken() -> None:
    timeline, _ = heard(8.0)
    end_ns = timeline.end_ns
    assert end_ns == START + 8 * S
    assert timeline.push(chunk(end_ns - 5 * S - 1)) == (AudioFate.OUT_OF_ORDER, [])
    assert timeline.end_ns == end_ns
    assert timeline.push(chunk(end_ns - 5 * S))[0] is AudioFate.TAKEN
    assert timeline.counts["stamp_out_of_order"] == 1


def test_a_repeat_has_the_same_stamp_and_the_same_sound() -> None:
    timeline, _ = heard(1.0)
    last = chunk(START + S, noise(seed=5))
    assert timeline.push(last)[0] is AudioFate.TAKEN
    assert timeline.push(last)[0] is AudioFate.OUT_OF_ORDER
    assert timeline.push(chunk(START + S + 1, noise(seed=5)))[0] is AudioFate.TAKEN
    assert timeline.push(chunk(START + S + 1, noise(seed=6)))[0] is AudioFate.TAKEN
    one_tone = np.full((TENTH, 2), 0.25, np.float32)
    stereo = np.stack([noise(seed=7), noise(seed=7)], axis=1)
    for samples, again in ((one_tone, AudioFate.TAKEN), (stereo, AudioFate.OUT_OF_ORDER)):
        assert timeline.push(chunk(START + 2 * S, samples))[0] is AudioFate.TAKEN
        assert timeline.push(chunk(START + 2 * S, samples))[0] is again
    assert timeline.counts["stamp_out_of_order"] == 2


@pytest.mark.parametrize(
    ("bad", "fate"),
    [
        (chunk(1), AudioFate.TAKEN),
        (chunk(0), AudioFate.STAMP_ZERO),
        (chunk(-5), AudioFate.STAMP_ZERO),
        (chunk(START, rate_hz=1_000), AudioFate.TAKEN),
        (chunk(START, rate_hz=999), AudioFate.BAD_RATE),
        (chunk(START, rate_hz=384_000), AudioFate.TAKEN),
        (chunk(START, rate_hz=384_001), AudioFate.BAD_RATE),
        (chunk(START, np.zeros((5, 0), np.float32)), AudioFate.EMPTY),
        (chunk(START, np.array([0.0, -np.inf], np.float32)), AudioFate.NOT_FINITE),
    ],
)
def test_what_is_refused_and_what_just_passes(bad: AudioChunk, fate: AudioFate) -> None:
    timeline = AudioTimeline("mic")
    assert timeline.push(bad)[0] is fate
    timeline.finish()
    refused = {} if fate is AudioFate.TAKEN else {fate.value: 1}
    assert {name: n for name, n in timeline.counts.items() if name != "spans_started"} == refused


def test_channels_are_averaged_and_what_is_too_loud_is_cut_off() -> None:
    quiet, loud = np.array([0.25, -0.5, 0.0], np.float32), np.array([2.0, -3.0, 1.0], np.float32)
    for samples, expected in (
        (quiet, quiet),
        (loud, [1.0, -1.0, 1.0]),
        (np.stack([quiet, -quiet], axis=1), [0.0, 0.0, 0.0]),
        (np.stack([quiet, quiet, quiet + 0.3], axis=1), quiet + 0.1),
        (np.stack([loud, loud], axis=1), [1.0, -1.0, 1.0]),
        (loud[:, None], [1.0, -1.0, 1.0]),
        (np.stack([loud, -loud + quiet], axis=1), quiet / 2),
    ):
        timeline = AudioTimeline("mic")
        timeline.push(chunk(START, np.asarray(samples, np.float32)))
        (span,) = timeline.finish()
        assert span.samples.dtype == np.float32
        np.testing.assert_allclose(span.samples, expected, atol=1e-6)
        assert (span.source, span.frame_id, span.start_ns) == ("mic", "ear", START)


def test_a_span_never_begins_before_the_end_of_the_last_one_or_the_start_that_is_given() -> None:
    timeline, spans = heard(1.0, not_before_ns=START + 30 * MS)
    spans += timeline.finish()
    assert spans[0].start_ns == START + 30 * MS
    assert START + S + 20 * MS < spans[-1].end_ns <= START + S + 30 * MS, "it draws slowly near to the stamps"
    assert timeline.finish() == []
    later = follow(timeline, START + S - 100 * MS) + timeline.finish()
    assert later[0].start_ns == spans[-1].end_ns
    assert timeline.counts == {"spans_started": 2}
    free = follow(timeline, START + 5 * S) + timeline.finish()
    assert free[0].start_ns == START + 5 * S


def test_the_frame_of_a_piece_is_that_of_its_message_and_a_new_rate_goes_on_at_once() -> None:
    timeline = AudioTimeline("mic")
    spans = timeline.push(chunk(START, noise(RATE), frame_id="left"))[1]
    spans += timeline.push(chunk(START + S, noise(44_100), 44_100, "right"))[1]
    spans += timeline.push(chunk(START + 2 * S, noise(44_100), 44_100, "right"))[1]
    spans += timeline.finish()
    assert timeline.counts == {"spans_started": 1, "rate_changes": 1}
    assert {span.frame_id for span in spans if span.end_ns <= START + S} == {"left"}
    assert {span.frame_id for span in spans if span.start_ns > START + S} == {"right"}
    assert spans[-1].end_ns == START + 3 * S
    assert sum(len(span.samples) for span in spans) == 3 * RATE


def test_late_first_stamps_move_the_start_of_a_span_to_the_one_that_waited_least() -> None:
    """The first chunks waited in the driver; a span begins where the earliest stamp, counted back, puts it."""
    timeline = AudioTimeline("mic")
    late_ms = (90, 60, 0, 10, 5, 0, 0, 0)
    spans = []
    for number, ms in enumerate(late_ms):
        spans += timeline.push(chunk(START + number * 100 * MS + ms * MS, noise(seed=number)))[1]
    spans += timeline.finish()
    assert spans[0].start_ns == START
    assert timeline.counts == {"spans_started": 1}
    timeline = AudioTimeline("mic")
    spans = []
    for number, ms in enumerate((24, 0, 0, 0, 0, 0)):  # within a chunk's length: the first stamp is exact
        spans += timeline.push(chunk(START + number * 100 * MS + ms * MS, noise(seed=number)))[1]
    spans += timeline.finish()
    assert spans[0].start_ns == START + 24 * MS
