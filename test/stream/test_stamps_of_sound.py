"""Sound is placed by counting; stamps that come late, in bursts or drift correct it, and lose no sample."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salmonn_node.stream.audio_segment import stretched
from salmonn_node.stream.audio_timeline import AudioFate, AudioTimeline
from salmonn_node.stream.observations import SECOND_NS, AudioChunk, AudioSpan

START = 1_700_000_000 * SECOND_NS
RATE = 16_000
MS = SECOND_NS // 1000


def noise(num: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.9, 0.9, num).astype(np.float32)


def chunks(samples: np.ndarray, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Pieces of `size` samples, each with the nanosecond at which a microphone has recorded it."""
    for first in range(0, len(samples), size):
        piece = samples[first : first + size]
        yield START + (first + len(piece)) * SECOND_NS // RATE, piece


def feed(timeline: AudioTimeline, stamped: list[tuple[int, np.ndarray]]) -> list[AudioSpan]:
    spans = []
    for stamp_ns, piece in stamped:
        fate, ready = timeline.push(AudioChunk(stamp_ns, "mic", piece, RATE))
        assert fate is AudioFate.TAKEN, (stamp_ns - START) / SECOND_NS
        spans += ready
    return spans + timeline.finish()


def joined(spans: list[AudioSpan]) -> np.ndarray:
    return np.concatenate([s.samples for s in spans])


def in_bursts(samples: np.ndarray, size: int, ends_ms: list[int]) -> list[tuple[int, np.ndarray]]:
    """Chunks stamped when the driver hands them over: at the first of `ends_ms` after they were recorded."""
    ends = [START + end * MS for end in ends_ms]
    stamped, handed_over = [], 0
    for recorded_ns, piece in chunks(samples, size):
        end_ns = next((end for end in ends if end >= recorded_ns), recorded_ns)
        handed_over = handed_over + 400 if stamped and end_ns <= stamped[-1][0] else 0
        stamped.append((end_ns + handed_over, piece))
    return stamped


@pytest.mark.parametrize(("size", "period_ms"), [(320, 250), (160, 500), (320, 100), (480, 1000), (800, 2000)])
def test_bursts_stamped_on_arrival_lose_nothing_and_lie_where_they_were_recorded(size: int, period_ms: int) -> None:
    samples = noise(24 * RATE)
    timeline = AudioTimeline("mic")
    spans = feed(timeline, in_bursts(samples, size, list(range(period_ms, 30_000, period_ms))))
    assert timeline.counts == {"spans_started": 1}
    assert timeline.silence_s == 0
    if size <= 320:  # stamps of longer chunks are coarser, and the placing may be corrected by some samples
        assert joined(spans).tobytes() == samples.tobytes()
    assert len(joined(spans)) == pytest.approx(len(samples), abs=RATE // 20)
    assert abs(spans[0].start_ns - START) <= 51 * MS


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(20, 700), min_size=30, max_size=60), st.sampled_from([160, 320, 480]))
def test_bursts_of_any_rhythm_lose_nothing(steps_ms: list[int], size: int) -> None:
    ends = np.cumsum(steps_ms).tolist()
    samples = noise(ends[-1] * RATE // 1000 // size * size)
    timeline = AudioTimeline("mic")
    spans = feed(timeline, in_bursts(samples, size, ends))
    assert timeline.counts == {"spans_started": 1}
    assert timeline.silence_s == 0
    assert len(joined(spans)) == pytest.approx(len(samples), rel=0.011)
    assert all(a.end_ns == b.start_ns for a, b in zip(spans, spans[1:], strict=False))
    assert abs(spans[-1].end_ns - (START + len(samples) * SECOND_NS // RATE)) < 700 * MS


@pytest.mark.parametrize("stall_ms", [300, 900, 1500, 8000])
def test_a_driver_that_stalls_and_catches_up_has_lost_nothing(stall_ms: int) -> None:
    samples = noise(30 * RATE)
    stamped = [(max(ns, START + 10_000 * MS + stall_ms * MS) if ns > START + 10_000 * MS else ns, piece)
               for ns, piece in chunks(samples, 320)]  # fmt: skip
    timeline = AudioTimeline("mic")
    spans = feed(timeline, stamped)
    assert timeline.counts == {"spans_started": 1}
    assert joined(spans).tobytes() == samples.tobytes()


@pytest.mark.parametrize("gap_ms", [100, 500, 950, 1500, 20_000])
@pytest.mark.parametrize("period_ms", [0, 250])
def test_a_true_gap_is_a_gap_also_in_bursts(gap_ms: int, period_ms: int) -> None:
    first, second = noise(10 * RATE), noise(10 * RATE, seed=1)
    ends = list(range(period_ms, 60_000, period_ms)) if period_ms else []
    stamped = in_bursts(first, 320, ends)
    stamped += [(ns + 10_000 * MS + gap_ms * MS, piece) for ns, piece in in_bursts(second, 320, ends)]
    timeline = AudioTimeline("mic")
    spans = feed(timeline, stamped)
    total_ns = 20_000 * MS + gap_ms * MS
    assert abs(spans[-1].end_ns - spans[0].start_ns - total_ns) < 60 * MS
    if gap_ms > 1000:
        assert timeline.counts == {"spans_started": 2}
        assert joined(spans).tobytes() == first.tobytes() + second.tobytes()
    elif gap_ms > period_ms + 40:
        assert timeline.counts == {"spans_started": 1, "gaps_filled": 1}
        assert abs(timeline.silence_s - gap_ms / 1000) < 0.05


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 160_000), max_size=40),
    st.lists(st.tuples(st.integers(1, 159_999), st.integers(1_000, 40_000)), max_size=4),
    st.sampled_from([8_000, 16_000, 44_100]),
)
def test_cuts_change_no_byte_where_sound_is_missing_too(
    cuts: list[int], gaps: list[tuple[int, int]], rate: int
) -> None:
    """Good stamps: whatever is missing, and however the rest was cut, output and places are the same."""
    samples = noise(160_000)
    gone = {at: length for at, length in gaps}

    def fed(edges: list[int]) -> list[AudioSpan]:
        timeline, spans = AudioTimeline("mic"), []
        edges = sorted({0, len(samples), *gone, *edges})
        for begin, end in zip(edges, edges[1:], strict=False):
            lost = sum(length for at, length in gone.items() if at <= begin)
            stamp_ns = START + (begin + lost) * SECOND_NS // rate
            fate, ready = timeline.push(AudioChunk(stamp_ns, "mic", samples[begin:end], rate))
            assert fate is AudioFate.TAKEN
            spans += ready
        return spans + timeline.finish()

    whole, cut = fed([]), fed(cuts)
    assert joined(whole).tobytes() == joined(cut).tobytes()
    assert [s.start_ns for s in whole] == [s.start_ns for s in cut]


@pytest.mark.parametrize(
    ("drift", "late_ms", "minutes"),
    [
        pytest.param(0.005, 0, 120, marks=pytest.mark.full),
        pytest.param(-0.005, 30, 120, marks=pytest.mark.full),
        (0.005, 30, 10),
        (-0.005, 0, 10),
        (0.0001, 30, 10),
        (0.009, 0, 5),
        (-0.009, 30, 5),
    ],
)
def test_a_drifting_sound_card_stays_with_the_stamps(drift: float, late_ms: int, minutes: int) -> None:
    """The card gives (1 + drift) times the samples that it claims; stamps are the robot's, some of them late."""
    size = RATE // 5
    rng = np.random.default_rng(1)
    piece = np.zeros(size, np.float32)
    timeline = AudioTimeline("mic")
    worst_ns = last_ns = 0
    for number in range(round(60 * minutes * (1 + drift) * RATE / size)):
        true_ns, end_ns = (START + round(n * size / RATE / (1 + drift) * SECOND_NS) for n in (number, number + 1))
        late_ns = int(rng.integers(0, late_ms * MS + 1))
        fate, spans = timeline.push(AudioChunk(true_ns + late_ns, "mic", piece, RATE))
        assert fate is AudioFate.TAKEN
        assert all(a.end_ns == b.start_ns for a, b in zip(spans, spans[1:], strict=False))
        if spans:
            assert last_ns in (0, spans[0].start_ns)
            last_ns = spans[-1].end_ns
        worst_ns = max(worst_ns, abs(timeline.end_ns - end_ns))
    assert timeline.counts == {"spans_started": 1}
    assert timeline.silence_s == 0
    assert worst_ns < 120 * MS


def test_a_drifting_tone_stays_clean() -> None:
    seconds, drift = 60, 0.005
    t = np.arange(round(seconds * RATE * (1 + drift))) / (RATE * (1 + drift))
    tone = (0.5 * np.sin(2 * np.pi * 1000 * t)).astype(np.float32)
    stamped = [(START + round(first / RATE / (1 + drift) * SECOND_NS), tone[first : first + 320])
               for first in range(0, len(tone), 320)]  # fmt: skip
    out = joined(feed(AudioTimeline("mic"), stamped))[30 * RATE : 58 * RATE]
    spectrum = np.abs(np.fft.rfft(out * np.hanning(len(out)))) ** 2
    peak = int(np.argmax(spectrum))
    assert peak / len(out) * RATE == pytest.approx(1000, abs=1)
    near = spectrum[peak - 60 : peak + 61].sum()
    assert near / spectrum.sum() > 0.999


def test_stretching_keeps_the_ends_and_the_sound() -> None:
    wave = np.sin(np.arange(1_600) * 0.2).astype(np.float32)
    for num in (1_584, 1_599, 1_601, 1_616):
        out = stretched(wave, num)
        assert len(out) == num
        assert out[0] == wave[0]
        assert out[-1] == pytest.approx(wave[-1], abs=1e-6)
        expected = np.sin(np.linspace(0, 1_599, num) * 0.2)
        assert np.abs(out - expected).max() < 2e-3


def test_lost_chunks_do_not_pile_up() -> None:
    """A best-effort link that loses one chunk in fifty: the sound stays with its stamps."""
    rng = np.random.default_rng(2)
    samples = noise(120 * RATE)
    stamped = [item for item in chunks(samples, 320) if rng.random() > 0.02]
    timeline = AudioTimeline("mic")
    spans = feed(timeline, stamped)
    assert timeline.counts["spans_started"] == 1
    assert abs(spans[-1].end_ns - stamped[-1][0]) < 250 * MS


def test_a_short_recording_that_comes_as_one_message_is_heard_at_once() -> None:
    timeline = AudioTimeline("mic")
    for second in (0, 60, 300):
        fate, spans = timeline.push(AudioChunk(START + second * SECOND_NS, "mic", noise(3 * RATE), RATE))
        assert fate is AudioFate.TAKEN
        new = [s for s in spans if s.start_ns >= START + second * SECOND_NS]
        assert sum(len(s.samples) for s in new) == 3 * RATE
