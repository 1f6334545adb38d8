"""Stalls, bursts and stamps that stay away from the count: which sound is lost, and where the rest is placed."""

from __future__ import annotations

import numpy as np
import pytest
from stream.test_audio_bounds import MS, RATE, START, S, chunk, follow, heard, noise

from salmonn_node.stream.audio_timeline import AudioFate, AudioTimeline
from salmonn_node.stream.observations import AudioSpan


def burst(timeline: AudioTimeline, from_ns: int, tenths: int, seed: int = 0) -> list[AudioSpan]:
    """Tenths of a second of sound that a driver hands over at one instant."""
    spans = []
    for number in range(tenths):
        fate, ready = timeline.push(chunk(from_ns + number, noise(seed=seed + number)))
        assert fate is AudioFate.TAKEN
        spans += ready
    return spans


@pytest.mark.parametrize(("stall_s", "lost"), [(29, False), (40, True)])
def test_a_driver_that_stalls_for_more_than_half_a_minute_has_lost_the_sound(stall_s: int, lost: bool) -> None:
    timeline, _ = heard(2.0)
    burst(timeline, START + 2 * S + stall_s * S, min(10 * stall_s, 302), seed=50)
    if not lost:
        follow(timeline, START + 2 * S + stall_s * S, 5)
    timeline.finish()
    assert timeline.counts["spans_started"] == 1 + lost
    assert timeline.silence_s == 0.0


@pytest.mark.parametrize("held_s", [1, 4])
def test_a_span_that_begins_with_a_burst_begins_where_its_last_chunk_counted_back_puts_it(held_s: int) -> None:
    """A driver kept sound back and handed it over at once: only the last chunk was stamped in time."""
    timeline = AudioTimeline("mic")
    spans = burst(timeline, START + held_s * S, 10 * held_s) + follow(timeline, START + held_s * S, 30)
    spans += timeline.finish()
    assert abs(spans[0].start_ns - START) < MS
    assert timeline.counts == {"spans_started": 1}
    assert sum(len(span.samples) for span in spans) == pytest.approx((held_s + 3) * RATE, rel=0.01)


def test_every_gap_is_counted() -> None:
    timeline, _ = heard(2.0)
    follow(timeline, START + 2 * S + 300 * MS)
    follow(timeline, START + 3 * S + 300 * MS)
    timeline.finish()
    assert timeline.counts == {"spans_started": 1, "gaps_filled": 2}
    assert timeline.silence_s == pytest.approx(0.8)


def test_a_message_of_one_sample_and_one_of_a_second_are_taken_at_once() -> None:
    timeline = AudioTimeline("mic")
    ready = timeline.push(chunk(START, noise(RATE)))[1]
    assert sum(len(span.samples) for span in ready) == RATE
    one = chunk(START + S, np.array([0.5], np.float32))
    assert [timeline.push(one)[0] for _ in range(2)] == [AudioFate.TAKEN, AudioFate.TAKEN]


@pytest.mark.parametrize("early_ms", [60, -60])
def test_sound_draws_near_to_stamps_that_stay_away(early_ms: int) -> None:
    timeline, _ = heard(2.0, jitter_s=0.1)
    end_ns = START + 12 * S - early_ms * MS
    follow(timeline, START + 2 * S - early_ms * MS, 100)
    assert abs(timeline.end_ns - end_ns) < 30 * MS
    assert timeline.counts == {"spans_started": 1}


def test_a_stall_that_is_caught_up_changes_no_sample() -> None:
    timeline, spans = heard(2.0)
    spans += burst(timeline, START + 3 * S, 10) + follow(timeline, START + 3 * S, 40) + timeline.finish()
    sound = [noise(seed=n) for n in (*range(20), *range(10), *range(99, 139))]
    assert np.array_equal(np.concatenate([span.samples for span in spans]), np.concatenate(sound))
