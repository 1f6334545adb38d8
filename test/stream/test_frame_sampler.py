"""The sampler takes one frame a second of each source and refuses what cannot be placed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salmonn_node.stream.frame_sampler import FrameFate, FrameSampler
from salmonn_node.stream.observations import SECOND_NS

MS = 1_000_000


def taken(stamps: list[int], source: str = "front", sampler: FrameSampler | None = None) -> list[int]:
    sampler = sampler or FrameSampler()
    return [s for s in stamps if sampler.offer(source, s) is FrameFate.TAKEN]


def test_thirty_hz_gives_one_frame_a_second() -> None:
    start = 1_700_000_000 * SECOND_NS
    stamps = [start + round(i * SECOND_NS / 30) for i in range(300)]
    kept = taken(stamps)
    assert len(kept) == 10
    assert all(abs(b - a - SECOND_NS) <= 34 * MS for a, b in zip(kept, kept[1:], strict=False))


def test_a_camera_at_one_hz_loses_nothing_to_jitter() -> None:
    stamps = [10 * SECOND_NS + i * SECOND_NS + (60 * MS if i % 2 else 0) for i in range(1, 50)]
    assert taken(stamps) == stamps


def test_zero_and_backward_stamps_are_refused_and_change_nothing() -> None:
    sampler = FrameSampler()
    assert sampler.offer("front", 5 * SECOND_NS) is FrameFate.TAKEN
    assert sampler.offer("front", 0) is FrameFate.STAMP_ZERO
    assert sampler.offer("front", 4 * SECOND_NS) is FrameFate.OUT_OF_ORDER
    assert sampler.offer("front", 5 * SECOND_NS) is FrameFate.OUT_OF_ORDER
    assert sampler.offer("front", 6 * SECOND_NS) is FrameFate.TAKEN


def test_rate_must_be_positive() -> None:
    with pytest.raises(ValueError, match="rate_hz"):
        FrameSampler(0.0)


@given(st.lists(st.integers(1, 3 * SECOND_NS), min_size=1, max_size=60), st.integers(0, 5))
def test_other_sources_and_refused_frames_do_not_change_what_is_taken(steps: list[int], every: int) -> None:
    stamps, now = [], 0
    for step in steps:
        now += step
        stamps.append(now)
    alone = taken(stamps)
    sampler, kept = FrameSampler(), []
    for i, stamp in enumerate(stamps):
        sampler.offer("rear", stamp + 17)
        if every and i % every == 0:
            sampler.offer("front", 0)
        if sampler.offer("front", stamp) is FrameFate.TAKEN:
            kept.append(stamp)
    assert kept == alone
    assert all(b - a > 0 for a, b in zip(kept, kept[1:], strict=False))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3 * SECOND_NS)), max_size=40), st.integers(0, 40))
def test_a_restored_sampler_decides_as_the_one_that_went_on(steps: list[tuple[str, int]], cut: int) -> None:
    sampler, now = FrameSampler(), SECOND_NS
    restored = None
    for number, (source, step) in enumerate(steps):
        if number == cut:
            restored = FrameSampler()
            restored.restore(json.loads(json.dumps(sampler.to_state())))
        now += step
        fate = sampler.offer(source, now)
        assert restored is None or restored.offer(source, now) is fate
    assert sampler.to_state().keys() == {"_first_ns", "_last_ns", "_period"}, "the stored format"
    if restored is not None:
        assert restored.to_state() == sampler.to_state()
    assert all(type(number) is int for numbers in sampler.to_state().values() for number in numbers.values())


def test_a_state_is_a_copy_and_a_reset_forgets_every_source() -> None:
    sampler = FrameSampler()
    sampler.offer("front", 5 * SECOND_NS)
    state = sampler.to_state()
    sampler.offer("front", 6 * SECOND_NS)
    assert state == {
        "_first_ns": {"front": 5 * SECOND_NS},
        "_last_ns": {"front": 5 * SECOND_NS},
        "_period": {"front": 0},
    }
    sampler.reset()
    assert sampler.to_state() == {"_first_ns": {}, "_last_ns": {}, "_period": {}}
    assert sampler.offer("front", 1) is FrameFate.TAKEN


@pytest.mark.parametrize(("early_ms", "fate"), [(100, FrameFate.TAKEN), (101, FrameFate.NOT_SAMPLED)])
def test_a_frame_may_be_a_tenth_of_a_period_early(early_ms: int, fate: FrameFate) -> None:
    sampler = FrameSampler()
    sampler.offer("front", 5 * SECOND_NS)
    assert sampler.offer("front", 6 * SECOND_NS - early_ms * MS) is fate


@pytest.mark.parametrize(("early_ms", "fate"), [(53, FrameFate.TAKEN), (54, FrameFate.NOT_SAMPLED)])
def test_a_frame_may_be_half_a_frame_interval_early(early_ms: int, fate: FrameFate) -> None:
    sampler = FrameSampler()
    assert taken([5_000 * MS, 5_700 * MS, 5_840 * MS], sampler=sampler) == [5_000 * MS]
    # 53 ms early is 107 ms after the frame before; 54 ms early is 106 ms after it.
    assert sampler.offer("front", 6 * SECOND_NS - early_ms * MS) is fate


@pytest.mark.parametrize(("rate_hz", "period_ns"), [(1.0, SECOND_NS), (4.0, SECOND_NS // 4), (0.5, 2 * SECOND_NS)])
def test_a_period_is_one_over_the_rate(rate_hz: float, period_ns: int) -> None:
    sampler = FrameSampler(rate_hz)
    assert sampler.period_ns == period_ns
    assert taken([period_ns * k + 1 for k in range(10)], sampler=sampler) == [period_ns * k + 1 for k in range(10)]
