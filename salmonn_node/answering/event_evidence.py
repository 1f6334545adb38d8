"""Events as evidence: when, where the robot was, the picture, and the part of it that the sharpest token covers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from salmonn_node.answering.evidence import AUDIO_TOKEN_NS, PictureSize
from salmonn_node.answering.image_region import region_of
from salmonn_node.memory.events import Event
from salmonn_node.memory.evidence_index import EvidenceIndex
from salmonn_node.memory.memory_view import MemoryView
from salmonn_node.stream.answers import Evidence, Region
from salmonn_node.stream.moment import Moment
from salmonn_node.stream.observations import Interval, Pose

MODALITY = {"visual": "vision", "audio": "audio"}


def evidence_of_events(
    events: Sequence[Event],
    view: MemoryView,
    index: EvidenceIndex,
    *,
    limit: int,
    pictures: bool,
    picture_size: PictureSize = lambda source: None,
    sharpest: bool = False,
) -> tuple[Evidence, ...]:
    """The events as evidence, in their order; all have the same share in the answer.

    Args:
        events: the events, the one that is pointed at first.
        view: the view that was read; its `unindexed` moments stand in for those that the index does not hold yet.
        index: gives poses, sensor frames and pictures.
        limit: most pieces.
        pictures: whether to include pictures.
        picture_size: (width, height) of a camera's pictures, or None; evidence has a region where it is known.
        sharpest: give pose, picture and region of the sharpest token; else pose and picture of the middle of the event.
    """
    chosen = list(events)[:limit]
    return tuple(_evidence(e, view, index, 1 / len(chosen), pictures, picture_size, sharpest) for e in chosen)


def _evidence(
    event: Event,
    view: MemoryView,
    index: EvidenceIndex,
    score: float,
    pictures: bool,
    picture_size: PictureSize,
    sharpest: bool,
) -> Evidence:
    modality, source = MODALITY[event.modality], view.sources[event.source]
    more_ns = AUDIO_TOKEN_NS if event.modality == "audio" else 0
    moment, place = _sharpest_moment(event, modality, source, view, index), -1
    if moment is not None:
        place = event.tokens[0] - moment.token_start
    middle, pose = _moment_at((event.first_ns + event.last_ns) // 2, modality, source, view, index)
    shown = moment if sharpest and moment is not None else middle or moment
    if shown is not None and shown is not middle:
        pose = None
    pose = pose or (index.pose(shown.pose_id) if shown is not None else None) or index.pose(event.pose_id)
    size = picture_size(source) if event.modality == "visual" else None
    region = None if size is None or place < 0 or shown is not moment else _region(place, event, view, size)
    return Evidence(
        interval=Interval(event.first_ns, event.last_ns + more_ns),
        modality=modality,
        source=source,
        frame_id=shown.frame_id if shown is not None else "",
        score=score,
        pose=pose,
        thumbnail=shown.thumbnail if shown is not None and pictures else b"",
        region=region,
        later_pose=index.pose_at(shown.interval.end_ns) if shown is not None and modality == "vision" else None,
    )


def _moment_at(
    stamp_ns: int, modality: str, source: str, view: MemoryView, index: EvidenceIndex
) -> tuple[Moment | None, Pose | None]:
    """The moment that covers a stamp, indexed or not, and its pose where that is not in the index."""
    # What was not indexed when the view was made counts as such, though the index may have gone on since.
    tail = [key for key in view.unindexed if key[:2] == (modality, source) and key[2] <= stamp_ns]
    return view.unindexed[max(tail)] if tail else (index.nearest(source, stamp_ns), None)


def _sharpest_moment(event: Event, modality: str, source: str, view: MemoryView, index: EvidenceIndex) -> Moment | None:
    """The moment of the event's sharpest token; None where that was not indexed when the view was made."""
    batch, committed = (
        (view.visual, view.visual_committed) if modality == "vision" else (view.audio, view.audio_committed)
    )
    if batch is not None:
        # Most tokens that wait for the fast weights are indexed: only an unfinished patch or window is not.
        waiting = (~committed & (batch.index == event.tokens[0])).nonzero()[:1, 0].tolist()
        if any((modality, source, int(batch.stamp_ns[row])) in view.unindexed for row in waiting):
            return None
    return index.of_tokens(modality, [event.tokens[0]])[0]


def _region(place: int, event: Event, view: MemoryView, size: tuple[int, int]) -> Region | None:
    """The part of the picture that the sharpest token covers, and the event's cells above and below it."""
    batch = view.visual
    if batch is None or batch.grid is None:
        return None
    same = (batch.source == event.source).nonzero()[:, 0]
    if not len(same):
        return None
    high, wide = (int(n) for n in batch.grid[int(same[-1])])
    if place >= high * wide:
        return None
    column = [
        cell
        for cell in range(high * wide)
        if cell == place or (event.region >> cell & 1 and cell % wide == place % wide)
    ]
    return region_of(np.array(column), np.ones(len(column)), (high, wide), size)
