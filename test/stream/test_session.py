"""A session's time never runs backward; one stray stamp is not a jump."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from salmonn_node.stream.observations import SECOND_NS as S
from salmonn_node.stream.session import SessionClock, StampFate


def test_a_confirmed_jump_back_starts_a_new_session_and_stragglers_stay_out() -> None:
    clock = SessionClock()
    for t in range(100, 200):
        assert clock.offer("camera", t * S) is StampFate.OK
        assert clock.offer("mic", t * S) is StampFate.OK
    assert clock.offer("camera", 100 * S) is StampFate.FAR_BEHIND
    assert clock.offer("camera", 101 * S) is StampFate.NEW_SESSION
    assert clock.number == 1
    assert clock.offer("mic", 200 * S) is StampFate.OLD_SESSION
    assert clock.offer("mic", 101 * S) is StampFate.OK
    assert (clock.start_ns, clock.newest_ns) == (101 * S, 101 * S)


def test_one_stray_stamp_changes_nothing() -> None:
    clock = SessionClock()
    clock.offer("camera", 1000 * S)
    assert clock.offer("camera", 1 * S) is StampFate.FAR_BEHIND
    assert clock.offer("camera", 10**9 * S) is StampFate.FAR_AHEAD
    assert clock.offer("camera", 1001 * S) is StampFate.OK
    assert clock.offer("camera", 1 * S) is StampFate.FAR_BEHIND
    assert (clock.number, clock.newest_ns) == (0, 1001 * S)


def test_small_steps_back_are_out_of_order() -> None:
    clock = SessionClock()
    clock.offer("camera", 10 * S)
    assert clock.offer("camera", 10 * S - 1) is StampFate.OUT_OF_ORDER
    assert clock.offer("mic", 9 * S) is StampFate.OK
    assert clock.offer("mic", 0) is StampFate.STAMP_ZERO


def test_a_long_pause_goes_on_in_the_same_session() -> None:
    clock = SessionClock()
    clock.offer("camera", 10 * S)
    assert clock.offer("camera", 10_000 * S) is StampFate.FAR_AHEAD
    assert clock.offer("camera", 10_001 * S) is StampFate.OK
    assert clock.number == 0


def test_a_source_with_a_wrong_clock_does_not_end_the_session_of_the_others() -> None:
    clock = SessionClock()
    clock.offer("camera", 10_000 * S)
    for t in range(5):
        assert clock.offer("rear", (100 + t) * S) is StampFate.FAR_BEHIND
    assert clock.offer("camera", 10_001 * S) is StampFate.OK
    assert clock.number == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-10, 10**4)), max_size=80))
def test_time_never_runs_backward_within_a_source_and_session(offers: list[tuple[str, int]]) -> None:
    clock, last = SessionClock(), {}
    for source, t in offers:
        session = clock.number
        fate = clock.offer(source, t * S)
        if fate is StampFate.NEW_SESSION:
            assert clock.number == session + 1
            last = {}
        else:
            assert clock.number == session
        if fate in (StampFate.OK, StampFate.NEW_SESSION):
            assert t * S >= last.get(source, 0)
            last[source] = t * S
            assert clock.start_ns > 0
            assert clock.newest_ns == max(last.values())
