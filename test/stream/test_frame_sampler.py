"""The sampler takes one frame a second of each source and refuses what cannot be placed."""

from __future__ import annotations

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
