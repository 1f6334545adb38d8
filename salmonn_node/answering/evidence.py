"""Evidence: turns the weights of memory tokens into intervals with stamps, poses and pictures, for people to check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from salmonn_node.answering.image_region import region_of
from salmonn_node.memory.evidence_index import EvidenceIndex
from salmonn_node.stream.answers import Evidence, Region
from salmonn_node.stream.moment import Moment
from salmonn_node.stream.observations import SECOND_NS, Interval

if TYPE_CHECKING:
    from salmonn_node.memory.memory_view import MemoryView
    from salmonn_node.memory.token_batch import TokenBatch

MASS = 0.5  # the chosen moments carry this share of the total weight, unless `limit` is reached first
JOIN_NS = 2_500_000_000  # neighbours no further apart than this are one stretch: a temporal patch spans two seconds
AUDIO_TOKEN_NS = SECOND_NS // 2
VISION, AUDIO = "vision", "audio"
PictureSize = Callable[[str], tuple[int, int] | None]


@dataclass
class _Stretch:
    """Consecutive tokens of one source. `peak_*` describe the heaviest moment of the stretch.

    `pointed` says whether one of its moments was chosen for its weight.
    """

    modality: str
    source: str
    start_ns: int
    end_ns: int
    weight: float
    peak_weight: float
    peak_token: int
    peak_pose: int
    peak_ns: int
    peak_rows: list[int] = field(default_factory=list)
    pointed: bool = False


def evidence_of(
    weights: npt.NDArray[np.float64],
    view: MemoryView,
    index: EvidenceIndex,
    *,
    limit: int,
    pictures: bool,
    picture_size: PictureSize = lambda source: None,
    after_ns: int = 0,
    before_ns: int = 0,
    mass: float = MASS,
    matching: npt.NDArray[np.bool_] | None = None,
) -> tuple[Evidence, ...]:
    """Return the heaviest stretches of the view as evidence, strongest first.

    The tokens of one temporal patch, or half a second of sound, form one moment. The heaviest moments are chosen until
    they carry `mass` of the total weight. Chosen neighbours of one source are joined to a stretch. `score` is a
    stretch's share of the total weight.

    Args:
        weights: (V + A,) non-negative weights of the view's tokens, visual first, then audio.
        view: the view that was read.
        index: gives pose, sensor frame and picture of a stretch's heaviest moment, unless the view has them.
        limit: most stretches.
        pictures: whether to include pictures.
        picture_size: returns the (width, height) of a camera's pictures, or None; evidence has a region if it is known.
        after_ns: start of the question's window (0: no bound). A temporal patch of two frames may reach over the ends
            of the window, so intervals are cut to it. A stretch outside the window is left out.
        before_ns: end of the window (0: no bound).
        mass: share of the total weight, in 0..1.
        matching: (V + A,) tokens that match the question even if they have little weight. A stretch extends over
            matching neighbours. Used for durations, because a pointer needs only one moment of the event.
    """
    total = float(weights.sum())
    if limit <= 0 or not np.isfinite(total) or total <= 0:
        return ()
    moments: list[_Stretch] = []
    alike: list[_Stretch] = []
    seen = 0 if view.visual is None else len(view.visual)
    for modality, batch, first in ((VISION, view.visual, 0), (AUDIO, view.audio, seen)):
        if batch is not None and len(batch):
            found = _moments(modality, batch, weights[first : first + len(batch)], view.sources)
            moments += found
            if matching is not None:
                alike += [m for m in found if matching[first + np.array(m.peak_rows)].any()]
    carried, chosen = 0.0, 0
    for moment in sorted(moments, key=lambda m: (-m.weight, m.start_ns, m.source)):
        if carried >= mass * total or chosen >= 2 * limit:
            break
        moment.pointed = True
        carried, chosen = carried + moment.weight, chosen + 1
    parts = [m for m in moments if m.pointed] + [m for m in alike if not m.pointed]
    stretches = [s for s in _joined(parts) if s.pointed]
    stretches = sorted(stretches, key=lambda s: (-s.weight, s.start_ns, s.source))[:limit]
    shown = (
        replace(_evidence(stretch, total, view, index, pictures), region=_region(stretch, view, weights, picture_size))
        for stretch in stretches
    )
    return tuple(inside for e in shown if (inside := _inside(e, after_ns, before_ns)) is not None)


def frame_period_ns(view: MemoryView) -> int:
    """Shortest time between the two frames of a temporal patch, nanoseconds; 0 when no patch has two frames."""
    if view.visual is None or view.visual.last_ns is None:
        return 0
    apart = (view.visual.last_ns - view.visual.stamp_ns).numpy()
    apart = apart[apart > 0]
    return int(apart.min()) if len(apart) else 0


def _inside(evidence: Evidence, after_ns: int, before_ns: int) -> Evidence | None:
    span = evidence.interval
    start, end = max(span.start_ns, after_ns), min(span.end_ns, before_ns or span.end_ns)
    if start > end:
        return None
    return (
        evidence if (start, end) == (span.start_ns, span.end_ns) else replace(evidence, interval=Interval(start, end))
    )


def _region(
    stretch: _Stretch, view: MemoryView, weights: npt.NDArray[np.float64], picture_size: PictureSize
) -> Region | None:
    """The region with the weight in the picture of the heaviest moment."""
    size = picture_size(stretch.source) if stretch.modality == VISION else None
    if size is None or view.visual is None or view.visual.grid is None:
        return None
    rows = np.array(stretch.peak_rows)
    grid = view.visual.grid.numpy()[rows]
    if (grid != grid[0]).any():
        return None
    high, wide = int(grid[0, 0]), int(grid[0, 1])
    return region_of(view.visual.place.numpy()[rows].astype(np.int64), weights[rows], (high, wide), size)


def _moments(
    modality: str, batch: TokenBatch, weights: npt.NDArray[np.float64], sources: Sequence[str]
) -> list[_Stretch]:
    index, stamp, last = (getattr(batch, name).numpy() for name in ("index", "stamp_ns", "last_ns"))
    source, pose = batch.source.numpy(), batch.pose_id.numpy()
    extra_ns = AUDIO_TOKEN_NS if modality == AUDIO else 0
    found: dict[tuple[int, int], _Stretch] = {}
    for i in range(len(batch)):
        key = (int(source[i]), int(stamp[i]))
        weight = float(weights[i])
        moment = found.get(key)
        if moment is None:
            end_ns, token, place = int(last[i]) + extra_ns, int(index[i]), int(pose[i])
            name = sources[key[0]]
            found[key] = _Stretch(modality, name, key[1], end_ns, weight, weight, token, place, key[1], [i])
        else:
            moment.weight += weight
            moment.peak_rows.append(i)
            moment.end_ns = max(moment.end_ns, int(last[i]) + extra_ns)
    for moment in found.values():
        moment.peak_weight = moment.weight
    return list(found.values())


def _joined(moments: list[_Stretch]) -> list[_Stretch]:
    stretches: list[_Stretch] = []
    for moment in sorted(moments, key=lambda m: (m.modality, m.source, m.start_ns)):
        last = stretches[-1] if stretches else None
        if (
            last is not None
            and (last.modality, last.source) == (moment.modality, moment.source)
            and moment.start_ns - last.end_ns <= JOIN_NS
        ):
            last.end_ns = max(last.end_ns, moment.end_ns)
            last.weight += moment.weight
            last.pointed |= moment.pointed
            if moment.peak_weight > last.peak_weight:
                last.peak_weight = moment.peak_weight
                last.peak_token, last.peak_pose, last.peak_ns = moment.peak_token, moment.peak_pose, moment.peak_ns
                last.peak_rows = moment.peak_rows
        else:
            stretches.append(moment)
    return stretches


def _evidence(
    stretch: _Stretch,
    total: float,
    view: MemoryView,
    index: EvidenceIndex,
    pictures: bool,
) -> Evidence:
    kept: Moment | None
    kept, pose = view.unindexed.get((stretch.modality, stretch.source, stretch.peak_ns), (None, None))
    if kept is None:
        kept = index.of_tokens(stretch.modality, [stretch.peak_token])[0]
    pose_id = kept.pose_id if kept is not None and kept.pose_id >= 0 else stretch.peak_pose
    end_ns = stretch.end_ns
    if kept is not None and stretch.modality == VISION:
        end_ns = max(end_ns, kept.interval.end_ns)
    return Evidence(
        interval=Interval(stretch.start_ns, end_ns),
        modality=stretch.modality,
        source=stretch.source,
        frame_id=kept.frame_id if kept is not None else "",
        score=min(1.0, stretch.weight / total),
        pose=pose or index.pose(pose_id),
        thumbnail=kept.thumbnail if kept is not None and pictures else b"",
        later_pose=index.pose_at(kept.interval.end_ns) if kept is not None and stretch.modality == VISION else None,
    )
