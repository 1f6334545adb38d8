"""A session's time never runs backward; one stray stamp is not a jump."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
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


@pytest.mark.parametrize(("ahead_ns", "fate"), [(60 * S, StampFate.OK), (60 * S + 1, StampFate.FAR_AHEAD)])
def test_a_source_may_step_a_minute_ahead(ahead_ns: int, fate: StampFate) -> None:
    clock = SessionClock()
    clock.offer("camera", 100 * S)
    assert clock.offer("camera", 100 * S + ahead_ns) is fate


@pytest.mark.parametrize(
    ("away_ns", "fate"),
    [
        (10 * S, StampFate.OK),
        (10 * S + 1, StampFate.FAR_AHEAD),
        (-10 * S, StampFate.OK),
        (-10 * S - 1, StampFate.FAR_BEHIND),
    ],
)
def test_a_new_source_begins_within_ten_seconds(away_ns: int, fate: StampFate) -> None:
    clock = SessionClock()
    clock.offer("camera", 100 * S)
    assert clock.offer("mic", 100 * S + away_ns) is fate


@pytest.mark.parametrize(("back_ns", "fate"), [(S, StampFate.OUT_OF_ORDER), (S + 1, StampFate.FAR_BEHIND)])
def test_a_step_back_of_a_second_is_an_out_of_order_message(back_ns: int, fate: StampFate) -> None:
    clock = SessionClock()
    clock.offer("camera", 100 * S)
    assert clock.offer("camera", 100 * S - back_ns) is fate


def test_a_stamp_that_stands_still_is_frozen_once_others_are_two_seconds_ahead() -> None:
    clock = SessionClock()
    clock.offer("camera", 100 * S)
    clock.offer("mic", 102 * S)
    assert clock.offer("camera", 100 * S) is StampFate.OK
    clock.offer("mic", 102 * S + 1)
    assert clock.offer("camera", 100 * S) is StampFate.FROZEN


def test_a_source_alone_is_believed_after_a_second() -> None:
    clock = SessionClock()
    clock.offer("camera", 1_000 * S)
    clock.offer("mic", 1_000 * S)
    assert clock.offer("camera", 100 * S) is StampFate.FAR_BEHIND
    assert clock.offer("camera", 101 * S - 1) is StampFate.FAR_BEHIND
    assert clock.offer("camera", 101 * S) is StampFate.NEW_SESSION


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 400)), max_size=40), st.integers(0, 40))
def test_a_restored_clock_places_stamps_as_the_one_that_went_on(offers: list[tuple[str, int]], cut: int) -> None:
    clock, restored = SessionClock(), None
    for number, (source, t) in enumerate(offers):
        if number == cut:
            restored = SessionClock()
            restored.offer("before", 7 * S)
            restored.restore(json.loads(json.dumps(clock.to_state())))
            # A stamp under suspicion is not stored: the clock that went on forgets it, too.
            clock.restore(clock.to_state())
        fate = clock.offer(source, t * S)
        assert restored is None or restored.offer(source, t * S) is fate
    assert clock.to_state().keys() == {"number", "start_ns", "newest_ns", "_last_ns", "_old_ns"}, "the stored format"
    if restored is not None:
        assert restored.to_state() == clock.to_state()


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


ODDITIES = {
    "20 s ahead": lambda t: t + 20,
    "70 s ahead": lambda t: t + 70,
    "300 s behind": lambda t: t - 300,
    "years ahead": lambda t: t + 14 * 365 * 86_400,
    "since boot": lambda t: 100 + t - 10_000,
    "resets every 8 s": lambda t: 10_001 + (t - 10_000) % 8.05,
    "frozen": lambda t: 10_000,
}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", sorted(ODDITIES))
def test_the_majority_owns_time_and_the_odd_source_is_refused(kind: str, first: bool) -> None:
    """Whichever source is heard first: sound and poses go on as if the camera were not there."""
    clock, taken, camera = SessionClock(), {"mic": 0, "pose": 0}, []
    for tick in range(600):
        t = 10_000 + tick / 10
        order = ["camera", "mic", "pose"] if first else ["mic", "pose", "camera"]
        for source in order:
            if source == "camera" and tick % 3:
                continue
            stamp = ODDITIES[kind](t) if source == "camera" else t
            fate = clock.offer(source, round(stamp * S))
            if source == "camera":
                camera.append(fate)
            else:
                taken[source] += fate in (StampFate.OK, StampFate.NEW_SESSION)
    assert min(taken.values()) >= 596
    assert clock.number <= 1
    assert clock.start_ns <= 10_001 * S
    assert sum(fate is StampFate.OK for fate in camera[100:]) == 0
    if kind != "frozen":
        assert "the other sources" in clock.offset_of("camera")
    if kind == "20 s ahead":
        assert re.search(r"lie (19\.9|20\.[01]) s ahead of", clock.offset_of("camera"))


def _offer_for_a_minute(offsets_s: dict[str, float], latencies_s: dict[str, float]) -> SessionClock:
    """Sources at rates of their own, each stamp some tens of milliseconds off; messages come after their latency."""
    rng = np.random.default_rng(7)
    rates_hz = {"camera": 15.0, "mic": 10.0, "pose": 0.7}
    messages = []
    for source, offset_s in offsets_s.items():
        for t in np.arange(1_000.0, 1_060.0, 1 / rates_hz[source]):
            stamp_s = t + offset_s + rng.uniform(-0.02, 0.02)
            messages.append((t + latencies_s.get(source, 0.05), source, round(stamp_s * S)))
    clock = SessionClock()
    fates = [clock.offer(source, stamp_ns) for _, source, stamp_ns in sorted(messages)]
    assert fates.count(StampFate.OK) >= len(fates) * 0.9
    return clock


@pytest.mark.parametrize("offset_s", [-9.0, -2.8, 2.8, 9.0])
@pytest.mark.parametrize("odd", ["camera", "mic", "pose"])
def test_a_small_steady_offset_is_told_of_the_source_that_agrees_with_none(odd: str, offset_s: float) -> None:
    clock = _offer_for_a_minute({"camera": 0.0, "mic": 0.0, "pose": 0.0, odd: offset_s}, {})
    for source in ("camera", "mic", "pose"):
        told = clock.offset_of(source)
        assert bool(told) == (source == odd), (source, told)
    said = re.search(r"stamp_offset_s: (-?[0-9.]+) corrects", clock.offset_of(odd))
    assert said is not None
    assert abs(float(said[1]) + offset_s) < 0.7


def test_of_two_sources_that_disagree_each_is_told_and_none_is_blamed() -> None:
    clock = _offer_for_a_minute({"camera": 0.0, "mic": 5.0}, {})
    assert re.search(r"5\.[01] s behind mic", clock.offset_of("camera"))
    assert re.search(r"5\.[01] s ahead of camera", clock.offset_of("mic"))
    assert "which of the two is right is not known" in clock.offset_of("mic")


def test_a_slow_encoder_is_not_taken_for_a_wrong_clock() -> None:
    clock = _offer_for_a_minute({"camera": 0.0, "mic": 0.0, "pose": 0.0}, {"camera": 1.5})
    assert [clock.offset_of(source) for source in ("camera", "mic", "pose")] == ["", "", ""]


def test_a_first_stamp_years_ahead_costs_one_new_session() -> None:
    clock = SessionClock()
    clock.offer("camera", 10**9 * S)
    fates = [clock.offer(source, round((100 + i / 10) * S)) for i in range(50) for source in ("camera", "mic")]
    assert clock.number == 1
    assert fates.count(StampFate.OK) > 95


def test_a_whole_robot_that_slept_goes_on() -> None:
    clock = SessionClock()
    for t in range(10):
        for source in ("camera", "mic", "pose"):
            assert clock.offer(source, (100 + t) * S) is StampFate.OK
    fates = [
        clock.offer(source, round((5_000 + i / 10) * S)) for i in range(30) for source in ("camera", "mic", "pose")
    ]
    assert fates[6:] == [StampFate.OK] * len(fates[6:])
    assert clock.number == 0


def test_the_smallest_stamp_is_a_stamp() -> None:
    clock = SessionClock()
    assert clock.offer("camera", 1) is StampFate.OK
    assert clock.offer("camera", 0) is StampFate.STAMP_ZERO


def test_who_opened_a_session_is_known_in_it() -> None:
    clock = SessionClock()
    clock.offer("camera", 1_000 * S)
    clock.offer("camera", 100 * S)
    assert clock.offer("camera", 101 * S) is StampFate.NEW_SESSION
    assert clock.to_state()["_last_ns"] == {"camera": 101 * S}
    assert clock.offer("camera", 131 * S) is StampFate.OK  # a newcomer would be refused there


def test_after_a_sleep_the_clocks_are_right_again_and_who_did_not_come_along_is_a_newcomer() -> None:
    clock = SessionClock()
    for source in ("camera", "mic", "pose"):
        clock.offer(source, 100 * S)
    for source, ms in (("camera", 0), ("camera", 100), ("camera", 200), ("mic", 0)):
        assert clock.offer(source, 5_000 * S + ms * S // 1000) is StampFate.FAR_AHEAD
    assert clock.offset_of("camera") != ""
    assert clock.offer("mic", 5_000 * S + S // 10) is StampFate.OK
    assert (clock.offset_of("camera"), clock.offset_of("mic")) == ("", "")
    assert clock.to_state()["_last_ns"] == {"camera": 100 * S, "mic": 5_000 * S + S // 10}
    clock.restart()
    clock.restart()
    assert clock.number == 2
