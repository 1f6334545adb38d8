"""Whose time counts when sources disagree: how many must go elsewhere together, and how near to each other."""

from __future__ import annotations

import pytest

from salmonn_node.stream.observations import SECOND_NS as S
from salmonn_node.stream.session import SessionClock, StampFate

HERE, THERE = 1_000 * S, 5_000 * S
OFF = (StampFate.FAR_AHEAD, StampFate.FAR_BEHIND)


def clock(*sources: str) -> SessionClock:
    """A session in which these sources have spoken."""
    session = SessionClock()
    for source in sources:
        assert session.offer(source, HERE) is StampFate.OK
    return session


def test_two_that_leave_do_not_move_the_session_while_two_stay() -> None:
    session = clock("a", "b", "c", "d")
    assert session.offer("a", THERE) in OFF
    assert session.offer("c", HERE + S) is session.offer("d", HERE + S) is StampFate.OK
    for source, stamp_ns in (("b", THERE), ("a", THERE + 2 * S), ("b", THERE + 2 * S), ("a", THERE + 3 * S)):
        assert session.offer(source, stamp_ns) in OFF
    assert session.newest_ns == HERE + S
    assert session.offer("c", THERE) in OFF, "its first message there"
    assert session.offer("c", THERE + S) is StampFate.OK, "three against one"
    assert session.newest_ns == THERE + S


def test_one_that_stayed_for_a_while_and_leaves_then_counts_no_longer_as_here() -> None:
    session = clock("a", "b", "c")
    assert session.offer("a", THERE) in OFF
    assert session.offer("b", HERE + S) is session.offer("c", HERE + S) is StampFate.OK
    assert session.offer("a", THERE + 2 * S) in OFF
    assert session.offer("b", THERE) in OFF
    assert session.offer("b", THERE + 2 * S) is StampFate.OK, "two against one"


def test_one_message_elsewhere_is_no_vote() -> None:
    session = clock("a", "b", "c")
    assert session.offer("b", THERE) in OFF
    assert session.offer("c", HERE + S) is StampFate.OK
    assert session.offer("a", THERE) in OFF
    assert session.offer("a", THERE + 2 * S) in OFF, "one against one"
    assert session.offer("b", THERE + 2 * S) is StampFate.OK, "two against one"


@pytest.mark.parametrize("there", [HERE - 900 * S, THERE])
@pytest.mark.parametrize("step_ns", [0, 1])
def test_two_messages_elsewhere_count_though_their_stamps_are_the_same(there: int, step_ns: int) -> None:
    session = clock("a")
    assert session.offer("a", there) in OFF
    fate = session.offer("a", there + step_ns)
    assert fate is (StampFate.NEW_SESSION if there < HERE else StampFate.OK)
    assert session.newest_ns == there + step_ns


@pytest.mark.parametrize(("apart_ns", "moves"), [(60 * S, True), (60 * S + 1, False)])
def test_messages_elsewhere_belong_together_up_to_a_minute(apart_ns: int, moves: bool) -> None:
    session = clock("a")
    assert session.offer("a", THERE) in OFF
    assert (session.offer("a", THERE + apart_ns) is StampFate.OK) == moves


@pytest.mark.parametrize(("apart_ns", "moves"), [(60 * S, True), (60 * S + 1, False)])
def test_sources_elsewhere_belong_together_up_to_a_minute(apart_ns: int, moves: bool) -> None:
    session = clock("a", "b", "c")
    assert session.offer("a", THERE) in OFF
    assert session.offer("c", HERE + S) is StampFate.OK
    assert session.offer("a", THERE) in OFF
    assert session.offer("b", THERE + apart_ns) in OFF
    assert (session.offer("b", THERE + apart_ns) is StampFate.OK) == moves


def test_a_stamp_between_two_sessions_belongs_to_the_new_one() -> None:
    session = clock("a")
    session.restart()
    assert session.offer("b", HERE - 4 * S) is StampFate.OK
    assert session.offer("a", HERE - 2 * S + 1) is StampFate.OLD_SESSION
    assert session.offer("a", HERE - 2 * S) is StampFate.OK


def test_a_source_that_strayed_and_came_back_is_as_before() -> None:
    session = clock("a", "b")
    assert session.offer("a", THERE) in OFF
    assert session.offer("a", HERE + S) is StampFate.OK
    assert session.offer("a", HERE + 31 * S) is StampFate.OK, "a minute ahead, as of any known source"
    assert session.offer("a", THERE) in OFF, "its first message there again"
