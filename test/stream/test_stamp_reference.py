"""The smallest lead of the last seconds is believed; a lead above zero only after a second of sound."""

from __future__ import annotations

import pytest

from salmonn_node.stream.observations import SECOND_NS as S
from salmonn_node.stream.stamp_reference import BUCKET_NS, SURE_NS, WINDOW_NS, StampReference

MS = S // 1000
DEAD_NS = 25 * MS


def after(leads_ms: list[int | None], duration_ns: int = BUCKET_NS) -> StampReference:
    reference = StampReference(DEAD_NS)
    for lead_ms in leads_ms:
        reference.note(duration_ns, None if lead_ms is None else lead_ms * MS)
    return reference


def test_nothing_is_due_before_the_first_lead() -> None:
    for reference in (StampReference(DEAD_NS), after([None] * 100)):
        assert (reference.due_ns, reference.highest_ns) == (0, 0)


@pytest.mark.parametrize(("lead_ms", "due_ms"), [(25, 0), (26, 1), (60, 35), (0, 0), (-25, 0), (-26, -1), (-60, -35)])
def test_what_is_more_than_the_dead_zone_is_due(lead_ms: int, due_ms: int) -> None:
    assert after([lead_ms] * 20).due_ns == due_ms * MS


def test_a_delay_is_believed_after_a_second_of_sound_and_early_stamps_at_once() -> None:
    buckets = SURE_NS // BUCKET_NS
    assert after([60] * buckets).due_ns == 0
    assert after([60] * (buckets + 1)).due_ns == 35 * MS
    assert after([-60]).due_ns == -35 * MS


def test_the_smallest_lead_counts_and_the_highest_is_known() -> None:
    reference = after([90, 60, 70, 40, 80] * 4)
    assert reference.due_ns == 15 * MS
    assert reference.highest_ns == 90 * MS
    assert after([-90, -60] * 10).highest_ns == 0
    assert after([-90, -60] * 10).due_ns == -65 * MS


def test_several_chunks_of_a_bucket_count_together() -> None:
    reference = after([60, 90, 30, 70] * 12, BUCKET_NS // 4)
    assert reference.due_ns == 5 * MS
    assert reference.highest_ns == 90 * MS


def test_a_lead_is_forgotten_after_the_window() -> None:
    buckets = WINDOW_NS // BUCKET_NS
    assert after([-60, *[60] * buckets]).due_ns == -35 * MS
    assert after([-60, *[60] * (buckets + 1)]).due_ns == 35 * MS
    assert after([200, *[60] * buckets]).highest_ns == 200 * MS
    assert after([200, *[60] * (buckets + 1)]).highest_ns == 60 * MS
    # Chunks without a lead make time pass too.
    assert after([-60, *[None] * (buckets + 1)]).due_ns == 0


def test_a_correction_counts_for_what_was_noted_before_and_after() -> None:
    reference = after([60] * 20)
    reference.moved(20 * MS)
    assert reference.due_ns == 15 * MS
    assert reference.highest_ns == 40 * MS
    reference.moved(15 * MS)
    assert reference.due_ns == 0
    for _ in range(50):
        reference.note(BUCKET_NS, 30 * MS)  # its lead now, 65 ms by the first count
    assert reference.due_ns == 5 * MS
    reference.moved(-100 * MS)
    assert reference.due_ns == 105 * MS


def test_leads_are_forgotten_when_sound_is_placed_anew() -> None:
    reference = after([60] * 20)
    reference.clear()
    assert (reference.due_ns, reference.highest_ns) == (0, 0)
    reference.note(BUCKET_NS, 90 * MS)
    assert (reference.due_ns, reference.highest_ns) == (0, 90 * MS)
