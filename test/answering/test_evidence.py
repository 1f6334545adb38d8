"""Which moments become evidence: the heaviest, joined to stretches, at most so many, with their pose and picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from salmonn_node.answering.evidence import evidence_of, frame_period_ns
from salmonn_node.memory.evidence_index import EvidenceIndex
from salmonn_node.memory.memory_view import MemoryView
from salmonn_node.memory.token_batch import TokenBatch
from salmonn_node.stream.answers import Evidence
from salmonn_node.stream.moment import Moment
from salmonn_node.stream.observations import SECOND_NS as S
from salmonn_node.stream.observations import Interval, Pose

SOURCES = ("front", "rear", "mic")


def tokens(rows: list[tuple[float, str]], *, last_s: float = 1.0, tokens_a_moment: int = 1) -> TokenBatch:
    """Moments at (second, source), each of so many tokens; the pose id is the second."""
    rows = [row for row in rows for _ in range(tokens_a_moment)]
    stamp = torch.tensor([round(second * S) for second, _ in rows])
    return TokenBatch(
        z=torch.zeros(len(rows), 4),
        deepstack=None,
        index=torch.arange(len(rows)),
        stamp_ns=stamp,
        patch=stamp // S,
        place=torch.tensor([k % tokens_a_moment for k in range(len(rows))]),
        source=torch.tensor([SOURCES.index(source) for _, source in rows]),
        pose_id=stamp // S,
        grid=torch.tensor([[2, tokens_a_moment // 2]] * len(rows)) if tokens_a_moment > 1 else None,
        last_ns=stamp + round(last_s * S),
    )


def view_of(visual: TokenBatch | None = None, audio: TokenBatch | None = None, **more) -> MemoryView:
    seen, heard = (0 if batch is None else len(batch) for batch in (visual, audio))
    every = torch.ones(seen, dtype=torch.bool), torch.ones(heard, dtype=torch.bool)
    return MemoryView(visual, every[0], audio, every[1], SOURCES, **more)


def found(weights: list[float], view: MemoryView, index: EvidenceIndex | None = None, **options) -> list[Evidence]:
    options = {"limit": 5, "pictures": True, **options}
    return list(evidence_of(np.array(weights), view, index or EvidenceIndex(":memory:"), **options))


def spans(evidence: list[Evidence]) -> list[tuple[float, float]]:
    return [(e.interval.start_ns / S, e.interval.end_ns / S) for e in evidence]


def far_apart(count: int) -> MemoryView:
    return view_of(tokens([(10.0 * (k + 1), "front") for k in range(count)]))


def test_the_heaviest_come_first_until_half_of_the_weight_is_carried() -> None:
    evidence = found([0.1, 0.3, 0.15, 0.25, 0.2], far_apart(5))
    assert spans(evidence) == [(20.0, 21.0), (40.0, 41.0)]
    assert [e.score for e in evidence] == pytest.approx([0.3, 0.25])
    assert spans(found([0.1, 0.5, 0.15, 0.05, 0.2], far_apart(5))) == [(20.0, 21.0)]  # half is enough
    assert len(found([0.1, 0.3, 0.15, 0.25, 0.2], far_apart(5), mass=0.8)) == 4
    assert len(found([2.0, 6.0, 3.0, 5.0, 4.0], far_apart(5), mass=1.0)) == 5


def test_the_score_is_the_share_of_all_weight() -> None:
    assert [e.score for e in found([6.0, 3.0, 1.0], far_apart(3), mass=1.0)] == pytest.approx([0.6, 0.3, 0.1])


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_no_more_pieces_than_asked_for(limit: int) -> None:
    evidence = found([1.0 + k / 100 for k in range(12)], far_apart(12), mass=1.0, limit=limit)
    assert len(evidence) == limit
    assert spans(evidence)[0] == (120.0, 121.0)


def test_moments_looked_at_are_twice_the_pieces() -> None:
    # Neighbours become one piece, so more moments than pieces are looked at, but no more than twice as many.
    rows = [(10.0 + k, "front") for k in range(6)]
    assert spans(found([6.0, 5.0, 4.0, 3.0, 2.0, 1.0], view_of(tokens(rows)), mass=1.0, limit=2)) == [(10.0, 14.0)]
    assert spans(found([6.0, 5.0, 4.0, 3.0, 2.0, 1.0], view_of(tokens(rows)), mass=1.0, limit=1)) == [(10.0, 12.0)]


def test_equal_weights_are_taken_in_order_of_time() -> None:
    assert spans(found([1.0] * 4, far_apart(4), mass=0.6, limit=4)) == [(10.0, 11.0), (20.0, 21.0), (30.0, 31.0)]


def test_neighbours_of_one_source_are_one_piece() -> None:
    rows = [(10.0, "front"), (13.5, "front"), (17.0 + 1e-9, "front"), (30.0, "front"), (31.0, "rear")]
    evidence = found([1.0] * 5, view_of(tokens(rows)), mass=1.0)
    # 13.5 follows 2.5 s after the end of 10.0 .. 11.0; 17.0 follows 2.5 s and a nanosecond after 14.5.
    assert [(e.source, span) for e, span in zip(evidence, spans(evidence), strict=True)] == [
        ("front", (10.0, 14.5)),
        ("front", (pytest.approx(17.0), pytest.approx(18.0))),
        ("front", (30.0, 31.0)),
        ("rear", (31.0, 32.0)),
    ]
    assert [e.score for e in evidence] == pytest.approx([0.4, 0.2, 0.2, 0.2])


def test_sound_and_sight_stay_apart_and_sound_lasts_to_its_tokens_end() -> None:
    view = view_of(tokens([(10.0, "front")]), tokens([(10.0, "mic"), (10.5, "mic")], last_s=0.0))
    evidence = found([1.0, 2.0, 2.0], view, mass=1.0)
    assert [(e.modality, e.source) for e in evidence] == [("audio", "mic"), ("vision", "front")]
    assert spans(evidence) == [(10.0, 11.0), (10.0, 11.0)]
    assert [e.score for e in evidence] == pytest.approx([0.8, 0.2])


def test_tokens_of_one_stamp_are_one_moment() -> None:
    visual = tokens([(10.0, "front"), (20.0, "front")], tokens_a_moment=4)
    evidence = found([0.1, 0.1, 0.1, 0.1, 0.3, 0.0, 0.0, 0.0], view_of(visual), limit=1)
    assert spans(evidence) == [(10.0, 11.0)]
    assert evidence[0].score == pytest.approx(4 / 7)


def test_pose_frame_and_picture_are_those_of_the_heaviest_moment() -> None:
    index = EvidenceIndex(":memory:")
    still = np.array([0.0, 0.0, 0.0, 1.0])
    for second in (10, 11, 12):
        number = index.add_pose(Pose(second * S, "map", np.array([float(second), 0.0, 0.0]), still))
        interval = Interval(second * S, second * S + S // 2)
        index.add(Moment("vision", second - 10, second - 9, interval, "front", f"f{second}", number, b"%d" % second))
    view = view_of(tokens([(10.0, "front"), (11.0, "front"), (12.0, "front")], last_s=0.0))
    (piece,) = found([0.2, 0.5, 0.3], view, index, mass=1.0)
    assert spans([piece]) == [(10.0, 12.0)]
    assert (piece.frame_id, piece.thumbnail) == ("f11", b"11")
    assert piece.pose is not None
    assert piece.pose.position[0] == 11.0
    assert piece.later_pose is None or piece.later_pose.stamp_ns >= 11 * S
    assert found([0.2, 0.5, 0.3], view, index, mass=1.0, pictures=False)[0].thumbnail == b""
    # The index knows how long a patch of two frames lasted; the kept token may have lost that.
    (last,) = found([0.0, 0.0, 1.0], view, index)
    assert spans([last]) == [(12.0, 12.5)]


def test_what_the_index_does_not_have_yet_comes_with_the_view() -> None:
    pose = Pose(10 * S, "map", np.array([7.0, 0.0, 0.0]), np.array([0.0, 0.0, 0.0, 1.0]))
    moment = Moment("vision", 0, 1, Interval(10 * S, 10 * S), "front", "optical", -1, b"jpeg")
    view = view_of(tokens([(10.0, "front")], last_s=0.0), unindexed={("vision", "front", 10 * S): (moment, pose)})
    (piece,) = found([1.0], view)
    assert (piece.frame_id, piece.thumbnail) == ("optical", b"jpeg")
    assert piece.pose is not None
    assert piece.pose.position[0] == 7.0


def test_without_a_moment_the_tokens_own_pose_counts() -> None:
    index = EvidenceIndex(":memory:")
    numbers = [
        index.add_pose(Pose((k + 1) * S, "map", np.array([float(k), 0.0, 0.0]), np.array([0.0, 0.0, 0.0, 1.0])))
        for k in range(4)
    ]
    view = view_of(replace(tokens([(10.0, "front")]), pose_id=torch.tensor([numbers[2]])))
    (piece,) = found([1.0], view, index)
    assert piece.pose is not None
    assert piece.pose.position[0] == 2.0
    assert (piece.frame_id, piece.thumbnail, piece.later_pose) == ("", b"", None)


def test_pieces_are_cut_to_the_window_and_those_outside_are_left_out() -> None:
    view = far_apart(3)  # 10 .. 11, 20 .. 21, 30 .. 31
    options = {"mass": 1.0, "after_ns": round(10.5 * S), "before_ns": round(20.25 * S)}
    assert spans(found([3.0, 2.0, 1.0], view, **options)) == [(10.5, 11.0), (20.0, 20.25)]
    assert spans(found([3.0, 2.0, 1.0], view, mass=1.0, after_ns=11 * S)) == [(11.0, 11.0), (20.0, 21.0), (30.0, 31.0)]
    assert spans(found([3.0, 2.0, 1.0], view, mass=1.0, before_ns=20 * S)) == [(10.0, 11.0), (20.0, 20.0)]


def test_a_stretch_extends_over_neighbours_that_match() -> None:
    rows = [(10.0 + k, "front") for k in range(6)] + [(40.0, "front")]
    weights = [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    matching = np.array([False, True, True, True, True, False, True])
    view = view_of(tokens(rows))
    assert spans(found(weights, view)) == [(12.0, 13.0)]
    # 40 matches as well, but nothing was pointed at there.
    assert spans(found(weights, view, matching=matching)) == [(11.0, 15.0)]
    heard = view_of(tokens([(5.0, "front")]), tokens([(10.0, "mic"), (10.5, "mic")], last_s=0.0))
    assert spans(found([0.0, 1.0, 0.0], heard, matching=np.array([False, False, True]))) == [(10.0, 11.0)]


def test_a_region_is_given_where_the_size_of_the_pictures_is_known() -> None:
    view = view_of(tokens([(10.0, "front")], tokens_a_moment=4))
    size = {"front": (64, 48)}
    (piece,) = found([0.0, 0.0, 0.0, 1.0], view, picture_size=size.get)
    assert piece.region is not None
    region = piece.region
    assert (region.x, region.y, region.x + region.width, region.y + region.height) == (32, 24, 64, 48)
    assert found([0.0, 0.0, 0.0, 1.0], view)[0].region is None
    wide = view_of(tokens([(10.0, "front")], tokens_a_moment=6))  # two rows of three
    (piece,) = found([0.0, 0.0, 0.0, 0.0, 0.0, 1.0], wide, picture_size=lambda source: (96, 48))
    region = piece.region
    assert region is not None
    assert (region.x, region.y, region.x + region.width, region.y + region.height) == (64, 24, 96, 48)
    one_token = view_of(tokens([(10.0, "front")]))  # of the whole picture: no region says more
    assert found([1.0], one_token, picture_size=size.get)[0].region is None
    mixed = replace(view.visual, grid=torch.tensor([[2, 2], [2, 2], [2, 2], [1, 4]]))
    assert found([0.0, 0.0, 0.0, 1.0], view_of(mixed), picture_size=size.get)[0].region is None
    sound = view_of(None, tokens([(10.0, "mic")]))
    assert found([1.0], sound, picture_size=lambda source: (64, 48))[0].region is None
    both = view_of(tokens([(10.0, "front")], tokens_a_moment=4), tokens([(50.0, "mic")]))
    (heard,) = found([0.0, 0.0, 0.0, 0.1, 0.9], both, picture_size=lambda source: (64, 48))
    assert (heard.modality, heard.region) == ("audio", None)


@pytest.mark.parametrize("weights", [[0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0]])
def test_weights_that_say_nothing_give_no_evidence(weights: list[float]) -> None:
    assert found(weights, far_apart(2)) == []
    assert found([1.0, 1.0], far_apart(2), limit=0) == []
    assert found([], view_of()) == []


def test_the_frame_period_is_the_shortest_time_between_the_frames_of_a_patch() -> None:
    visual = tokens([(10.0, "front"), (20.0, "front"), (30.0, "front")], last_s=1.0)
    assert frame_period_ns(view_of(visual)) == S
    mixed = replace(visual, last_ns=visual.stamp_ns + torch.tensor([0, S // 2, S]))
    assert frame_period_ns(view_of(mixed)) == S // 2
    assert frame_period_ns(view_of(tokens([(10.0, "front")], last_s=0.0))) == 0
    assert frame_period_ns(view_of()) == 0
