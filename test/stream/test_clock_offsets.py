"""What is said of a source's clock: from how many stamps on, from how large an offset on, and in which words."""

from __future__ import annotations

import pytest

from salmonn_node.stream.clock_offsets import COMPARED, STRAY, ClockOffsets
from salmonn_node.stream.observations import SECOND_NS as S

TWO = "; which of the two is right is not known, both are taken as stamped"


def compared(offsets_ns: list[int], others: tuple[str, ...] = ("mic",)) -> ClockOffsets:
    """Stamps of the camera, each so much later than those of the others, which agree with each other."""
    offsets = ClockOffsets()
    offsets.accept("camera", 1_000 * S + offsets_ns[0])  # a source's first stamp is not compared
    for number, offset_ns in enumerate(offsets_ns):
        for other in others:
            offsets.accept(other, 1_000 * S + number)
        offsets.accept("camera", 1_000 * S + number + offset_ns)
    return offsets


def test_a_few_refused_stamps_are_strays_and_more_are_a_fault() -> None:
    for refused in range(1, STRAY + 2):
        offsets = ClockOffsets()
        for _ in range(refused):
            offsets.refuse("camera", 20 * S)
        assert offsets.of("camera") != "", "refused just now"
        offsets.accept("mic", S)
        assert offsets.of("camera") != "", "another source changes nothing"
        offsets.accept("camera", S)
        assert (offsets.of("camera") == "") == (refused < STRAY), refused
        assert offsets.of("mic") == ""


@pytest.mark.parametrize("number", [COMPARED - 1, COMPARED])
def test_an_offset_is_told_once_enough_stamps_were_compared(number: int) -> None:
    assert (compared([5 * S] * number).of("camera") != "") == (number == COMPARED)


@pytest.mark.parametrize(
    ("offset_ns", "told"), [(2 * S, False), (2 * S + 1, True), (-2 * S, False), (-2 * S - 1, True), (0, False)]
)
def test_an_offset_of_up_to_two_seconds_is_usual(offset_ns: int, told: bool) -> None:
    assert (compared([offset_ns] * COMPARED).of("camera") != "") == told


@pytest.mark.parametrize("other_s", [30, -30])
def test_a_source_that_agrees_with_one_other_is_not_told(other_s: int) -> None:
    offsets = ClockOffsets()
    for number in range(COMPARED + 2):
        offsets.accept("mic", 1_000 * S + number)
        offsets.accept("rear", (1_000 + other_s) * S + number)
        offsets.accept("camera", 1_000 * S + number)
    assert (offsets.of("camera"), offsets.of("mic")) == ("", "")
    assert "30.0 s" in offsets.of("rear")


@pytest.mark.parametrize("usual_ns", [0, 2 * S, -2 * S])
@pytest.mark.parametrize("place", [0, 10, COMPARED])
def test_one_usual_stamp_shows_that_the_offset_is_not_steady(usual_ns: int, place: int) -> None:
    for sign in (1, -1):
        offsets_ns = [sign * 5 * S] * COMPARED
        offsets_ns.insert(place, usual_ns)
        assert compared(offsets_ns).of("camera") == ""


def test_the_words_name_side_size_and_correction() -> None:
    ahead = "its stamps lie 5.0 s ahead of {}; camera.stamp_offset_s: -5.0 corrects that"
    ahead += " (replay: --stamp-offset camera=-5.0)"
    behind = "its stamps lie 5.0 s behind {}; {}.stamp_offset_s: 5.0 corrects that (replay: --stamp-offset {}=5.0)"
    offsets = compared([5 * S] * (COMPARED + 1))
    assert offsets.of("camera") == ahead.format("mic") + TWO
    assert offsets.of("mic") == behind.format("camera", "mic", "mic") + TWO
    offsets = compared([-5 * S] * COMPARED, others=("mic", "pose"))
    words = behind.format("the other sources", "camera", "camera")
    assert offsets.of("camera") == words + "; its observations are taken as stamped"
    assert (offsets.of("mic"), offsets.of("pose"), offsets.of("unknown")) == ("", "", "")


def test_of_several_stamps_the_nearest_counts() -> None:
    offsets = ClockOffsets()
    offsets.accept("camera", 1_103 * S)
    for number in range(COMPARED):
        offsets.accept("far", 1_000 * S + number)
        offsets.accept("near", 1_100 * S + number)
        offsets.accept("camera", 1_103 * S + number)
    assert "3.0 s ahead of the other sources" in offsets.of("camera")


def test_refused_stamps_give_the_range_of_their_offsets() -> None:
    offsets = ClockOffsets()
    offsets.refuse("camera", 20 * S)
    offsets.refuse("camera", 22 * S)
    assert offsets.of("camera").startswith("its stamps lie 21.0 s ahead of the other sources; ")
    offsets.refuse("camera", 22 * S + S // 10)
    assert offsets.of("camera") == "its stamps lie 20.0 to 22.1 s ahead of the other sources, at no steady offset"
    offsets = ClockOffsets()
    for ns in (-30 * S, -40 * S, -35 * S):
        offsets.refuse("camera", ns)
    assert offsets.of("camera") == "its stamps lie 30.0 to 40.0 s behind the other sources, at no steady offset"


def test_what_is_forgiven_or_cleared_is_not_told() -> None:
    offsets = ClockOffsets()
    for source in ("camera", "mic"):
        for _ in range(STRAY):
            offsets.refuse(source, 20 * S)
    offsets.forgive("camera")
    offsets.forgive("nobody")
    assert offsets.of("camera") == ""
    assert offsets.of("mic") != ""
    offsets.clear()
    assert offsets.of("mic") == ""
    offsets = compared([5 * S] * COMPARED)
    offsets.clear()
    offsets.accept("camera", 5 * S)  # nothing is left to compare with
    assert offsets.of("camera") == ""
    assert offsets == ClockOffsets(_since={"camera": {}})


def test_stamps_of_the_source_itself_are_no_comparison() -> None:
    offsets = ClockOffsets()
    for number in range(2 * COMPARED):
        offsets.accept("camera", number * 5 * S + 1)
    assert offsets.of("camera") == ""
    offsets.accept("mic", S)
    assert offsets.of("mic") == ""
