"""The timeline's bytes depend on the sound and its stamps, never on how it was cut into messages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salmonn_node.stream.audio_timeline import AudioFate, AudioTimeline
from salmonn_node.stream.observations import SAMPLE_RATE_HZ, SECOND_NS, AudioChunk, AudioSpan

START = 1_700_000_000 * SECOND_NS


def noise(num: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.9, 0.9, (num, channels)).astype(np.float32)


def chunk(samples: np.ndarray, first: int, rate_hz: int, start_ns: int = START) -> AudioChunk:
    return AudioChunk(start_ns + first * SECOND_NS // rate_hz, "mic", samples, rate_hz, "mic_link")


def feed(timeline: AudioTimeline, samples: np.ndarray, cuts: list[int], rate_hz: int) -> list[AudioSpan]:
    spans, edges = [], [0, *sorted(set(cuts)), len(samples)]
    for begin, end in zip(edges, edges[1:], strict=False):
        if end > begin:
            fate, ready = timeline.push(chunk(samples[begin:end], begin, rate_hz))
            assert fate is AudioFate.TAKEN
            spans += ready
    return spans + timeline.finish()


def joined(spans: list[AudioSpan]) -> np.ndarray:
    return np.concatenate([s.samples for s in spans])


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000]),
    st.sampled_from([1, 2, 6]),
    st.lists(st.integers(1, 20_000), max_size=40),
)
def test_cuts_do_not_change_a_byte(rate_hz: int, channels: int, cuts: list[int]) -> None:
    samples = noise(20_001, channels)
    whole = feed(AudioTimeline("mic"), samples, [], rate_hz)
    cut = feed(AudioTimeline("mic"), samples, cuts, rate_hz)
    assert joined(whole).tobytes() == joined(cut).tobytes()
    assert [s.start_ns for s in whole] == [s.start_ns for s in cut]
    assert whole[0].start_ns == START
    assert all(a.end_ns == b.start_ns for a, b in zip(cut, cut[1:], strict=False))
    assert abs(len(joined(whole)) - len(samples) * SAMPLE_RATE_HZ / rate_hz) <= 1


def test_a_tone_stays_a_tone() -> None:
    t = np.arange(48_000 * 2) / 48_000
    tone = (0.5 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    out = joined(feed(AudioTimeline("mic"), np.stack([tone, tone], axis=1), list(range(960, 96_000, 960)), 48_000))
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(out)) / SAMPLE_RATE_HZ)
    assert np.abs(out - expected)[1000:-1000].max() < 1e-3


def test_a_short_gap_is_silence_and_a_long_one_starts_a_span() -> None:
    timeline = AudioTimeline("mic")
    one = noise(16_000)
    spans = timeline.push(chunk(one, 0, 16_000))[1]
    spans += timeline.push(chunk(one, 24_000, 16_000))[1]  # half a second is missing
    spans += timeline.push(chunk(one, 80_000, 16_000))[1]  # two and a half seconds are missing
    spans += timeline.finish()
    assert timeline.counts["gaps_filled"] == 1
    assert timeline.counts["spans_started"] == 2
    assert timeline.silence_s == pytest.approx(0.5)
    second = [s for s in spans if s.start_ns >= START + 5 * SECOND_NS]
    first = [s for s in spans if s not in second]
    assert second[0].start_ns == START + 5 * SECOND_NS
    assert np.array_equal(joined(first), np.concatenate([one[:, 0], np.zeros(8_000, np.float32), one[:, 0]]))
    assert np.array_equal(joined(second), one[:, 0])


def test_jitter_is_not_a_gap() -> None:
    timeline = AudioTimeline("mic")
    samples = noise(16_000)
    rng = np.random.default_rng(3)
    for first in range(0, 16_000, 320):
        piece = samples[first : first + 320]
        jitter_ns = int(rng.integers(-15_000_000, 15_000_000))
        fate, _ = timeline.push(chunk(piece, first, 16_000, START + jitter_ns))
        assert fate is AudioFate.TAKEN
    assert timeline.counts == {"spans_started": 1}


def test_sound_stamped_a_little_early_follows_on_and_sound_of_long_ago_is_refused() -> None:
    timeline = AudioTimeline("mic")
    samples = noise(160_000)
    spans = timeline.push(chunk(samples[:8_000], 0, 16_000))[1]
    spans += timeline.push(chunk(samples[8_000:96_000], 6_000, 16_000))[1]
    assert timeline.push(chunk(samples[:8_000], 0, 16_000)) == (AudioFate.OUT_OF_ORDER, [])
    spans += timeline.push(chunk(samples[96_000:], 96_000, 16_000))[1]
    assert len(joined(spans + timeline.finish())) == pytest.approx(160_000, rel=0.01)
    assert timeline.counts["spans_started"] == 1
    assert timeline.counts["stamp_out_of_order"] == 1


def test_a_message_that_comes_twice_is_heard_once_but_silence_may_repeat() -> None:
    timeline = AudioTimeline("mic")
    samples = noise(320)
    fates = [timeline.push(chunk(samples, 0, 16_000))[0] for _ in range(2)]
    assert fates == [AudioFate.TAKEN, AudioFate.OUT_OF_ORDER]
    silence = np.zeros((320, 1), np.float32)
    assert [timeline.push(chunk(silence, 320, 16_000))[0] for _ in range(2)] == [AudioFate.TAKEN, AudioFate.TAKEN]


def test_a_rate_change_goes_on_in_the_same_span() -> None:
    timeline = AudioTimeline("mic")
    spans = timeline.push(chunk(noise(16_000), 0, 16_000))[1]
    spans += timeline.push(chunk(noise(44_100), 44_100, 44_100))[1]
    spans += timeline.finish()
    assert timeline.counts["rate_changes"] == 1
    assert timeline.counts["spans_started"] == 1
    assert all(a.end_ns == b.start_ns for a, b in zip(spans, spans[1:], strict=False))
    assert spans[-1].end_ns == START + 2 * SECOND_NS


@pytest.mark.parametrize(
    ("bad", "fate"),
    [
        (AudioChunk(0, "mic", noise(10), 16_000), AudioFate.STAMP_ZERO),
        (AudioChunk(START, "mic", noise(0), 16_000), AudioFate.EMPTY),
        (AudioChunk(START, "mic", np.full((10, 1), np.nan, np.float32), 16_000), AudioFate.NOT_FINITE),
        (AudioChunk(START, "mic", np.full((10, 1), np.inf, np.float32), 16_000), AudioFate.NOT_FINITE),
        (AudioChunk(START, "mic", noise(10), 0), AudioFate.BAD_RATE),
        (AudioChunk(START, "mic", noise(10), 10_000_000), AudioFate.BAD_RATE),
    ],
)
def test_bad_chunks_are_refused_with_a_counted_reason(bad: AudioChunk, fate: AudioFate) -> None:
    timeline = AudioTimeline("mic")
    assert timeline.push(bad) == (fate, [])
    assert timeline.counts == {fate.value: 1}
    assert timeline.end_ns == 0
