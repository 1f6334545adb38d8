"""Evidence of events at the end of a stream: the same, whatever has come into the index since the view was made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from salmonn_node.answering.event_evidence import evidence_of_events
from salmonn_node.ingest.placed_moments import PlacedMoments
from salmonn_node.memory.events import Event
from salmonn_node.memory.evidence_index import EvidenceIndex
from salmonn_node.memory.memory_view import MemoryView
from salmonn_node.memory.token_batch import TokenBatch
from salmonn_node.model.memory_writer import MOMENT_TOKENS
from salmonn_node.stream.moment import Moment
from salmonn_node.stream.observations import SECOND_NS as S
from salmonn_node.stream.observations import Interval, Pose

TOKENS, WINDOW_S = 10, 4  # half seconds of sound from second 4 on, which wait for the end of their window


def moment(row: int) -> Moment:
    start_ns = WINDOW_S * S + row * S // 2
    return Moment(
        "audio", row, row + MOMENT_TOKENS, Interval(start_ns, start_ns + MOMENT_TOKENS * S // 2), "mic", "ear"
    )


def placed() -> tuple[PlacedMoments, EvidenceIndex]:
    """Moments with poses: at second t the robot is at x = t."""
    index = EvidenceIndex(":memory:")
    moments = PlacedMoments(index)
    for second in range(1, 12):
        x = np.array([float(second), 0.0, 0.0])
        assert moments.add_pose(Pose(second * S, "map", x, np.array([0.0, 0.0, 0.0, 1.0]))) == "taken"
    moments.note_newest(moment(TOKENS - MOMENT_TOKENS))
    return moments, index


def waiting_sound() -> MemoryView:
    stamp = torch.arange(TOKENS) * (S // 2) + WINDOW_S * S
    zeros = torch.zeros(TOKENS, dtype=torch.long)
    batch = TokenBatch(
        z=torch.zeros(TOKENS, 4), deepstack=None, index=torch.arange(TOKENS), stamp_ns=stamp, patch=zeros - 1,
        place=zeros, source=zeros, pose_id=zeros - 1, grid=None, last_ns=stamp,
    )  # fmt: skip
    known = torch.zeros(TOKENS, dtype=torch.bool)
    return MemoryView(None, torch.ones(0, dtype=torch.bool), batch, known, ("mic",))


@pytest.mark.parametrize("first", range(TOKENS - 1))
@pytest.mark.parametrize("sharpest", [False, True])
def test_the_end_of_sound_keeps_its_pose_when_the_index_goes_on(first: int, sharpest: bool) -> None:
    moments, index = placed()
    waiting = waiting_sound()
    waiting = replace(waiting, unindexed=moments.unindexed(waiting))
    assert len(waiting.unindexed) == TOKENS
    stamps = (WINDOW_S * S + first * S // 2, WINDOW_S * S + (first + 1) * S // 2)
    keys = torch.zeros(4), torch.zeros(4)
    event = Event(0, "audio", 0, *stamps, *keys, 2.0, 2, 1.0, tokens=(first, first, first + 1))
    options = {"limit": 1, "pictures": False, "sharpest": sharpest}
    (before,) = evidence_of_events([event], waiting, index, **options)
    for row in range(0, TOKENS, MOMENT_TOKENS):
        moments.add(moment(row))
    (since,) = evidence_of_events([event], waiting, index, **options)
    assert before.pose is not None
    assert since.pose is not None
    assert before.pose.position[0] == WINDOW_S + first / 2
    assert (since.pose.stamp_ns, *since.pose.position) == (before.pose.stamp_ns, *before.pose.position)
    assert (since.interval, since.frame_id) == (before.interval, before.frame_id)


def test_what_waits_for_the_fast_weights_but_is_indexed_keeps_its_sharpest_moment() -> None:
    moments, index = placed()
    for row in range(0, TOKENS, MOMENT_TOKENS):
        moments.add(moment(row))
    view = waiting_sound()
    view = replace(view, unindexed=moments.unindexed(view))
    assert not view.unindexed
    keys, stamps = (torch.zeros(4), torch.zeros(4)), (WINDOW_S * S, WINDOW_S * S + (TOKENS - 1) * S // 2)
    event = Event(0, "audio", 0, *stamps, *keys, 2.0, 2, 1.0, tokens=(0, 0, TOKENS - 1))
    (sharpest,) = evidence_of_events([event], view, index, limit=1, pictures=False, sharpest=True)
    (middle,) = evidence_of_events([event], view, index, limit=1, pictures=False)
    assert sharpest.pose is not None
    assert middle.pose is not None
    assert (sharpest.pose.position[0], middle.pose.position[0]) == (WINDOW_S, WINDOW_S + 2)
