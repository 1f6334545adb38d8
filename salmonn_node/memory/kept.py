"""Counts what a memory still holds: moments, kept tokens and events by source and time, and the robot's path."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from salmonn_node.memory.evidence_index import EvidenceIndex
from salmonn_node.memory.stream_memory import StreamMemory
from salmonn_node.stream.answers import Evidence
from salmonn_node.stream.kept_timeline import DEFAULT_BINS, MAX_BINS, MAX_PATH_POSES, KeptTimeline, SourceRow
from salmonn_node.stream.observations import SECOND_NS

LEAST_BIN_S = 2  # two frames make a patch, at one frame a second
TOKENS_OF = {"vision": "visual", "audio": "audio"}


def kept_timeline(
    memory: StreamMemory,
    evidence: EvidenceIndex,
    memory_id: str = "",
    *,
    after_ns: int = 0,
    before_ns: int = 0,
    max_bins: int = 0,
    max_poses: int = 0,
) -> KeptTimeline:
    """The timeline of a memory.

    Args:
        memory: the running session's memory.
        evidence: its evidence index.
        memory_id: name to put into the timeline.
        after_ns: leave out what ended before; 0: the start of the memory.
        before_ns: leave out what began after; 0: now.
        max_bins: at most MAX_BINS; 0: DEFAULT_BINS. A bin is a whole number of seconds, at least LEAST_BIN_S.
        max_poses: at most MAX_PATH_POSES poses of the path; 0: no path.

    Raises:
        ValueError: an argument is out of its range.
    """
    if after_ns < 0 or before_ns < 0 or (before_ns and before_ns < after_ns):
        raise ValueError(f"after ({after_ns} ns) must not be negative or later than before ({before_ns} ns)")
    if not 0 <= max_bins <= MAX_BINS:
        raise ValueError(f"max_bins must be 0 to {MAX_BINS}, got {max_bins}")
    if not 0 <= max_poses <= MAX_PATH_POSES:
        raise ValueError(f"max_poses must be 0 to {MAX_PATH_POSES}, got {max_poses}")
    moments = evidence.spans(after_ns, before_ns)
    tokens, events = _tokens(memory, after_ns, before_ns), _events(memory, after_ns, before_ns)
    path = evidence.robot_path(after_ns, before_ns, max_poses) if max_poses else []
    ends = [spans.reshape(-1) for spans in moments.values()]
    every = np.concatenate([*ends, *tokens.values(), np.zeros(0, np.int64)])
    if after_ns or before_ns:
        every = np.clip(every, after_ns, before_ns or None)
    if not len(every):
        return KeptTimeline(memory_id, 0, SECOND_NS, (), tuple(path))
    start_ns = int(every.min()) // SECOND_NS * SECOND_NS
    seconds = (int(every.max()) - start_ns) // SECOND_NS + 1
    bin_s = max(LEAST_BIN_S, -(-seconds // (max_bins or DEFAULT_BINS)))
    bins = -(-seconds // bin_s)

    def number(stamps: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.clip((stamps - start_ns) // (bin_s * SECOND_NS), 0, bins - 1)

    def counted(stamps: npt.NDArray[np.int64] | None) -> tuple[int, ...]:
        if stamps is None:
            return (0,) * bins
        return tuple(int(n) for n in np.bincount(number(stamps), minlength=bins))

    def covered(spans: npt.NDArray[np.int64] | None) -> tuple[int, ...]:
        if spans is None:
            return (0,) * bins
        # +1 where a moment begins, -1 behind its end: the sum so far is the number of moments that touch the bin.
        change = np.bincount(number(spans[:, 0]), minlength=bins + 1)
        change -= np.bincount(number(spans[:, 1]) + 1, minlength=bins + 1)
        return tuple(int(n) for n in np.cumsum(change)[:bins])

    keys = sorted({*moments, *tokens}, key=lambda key: (key[0] != "vision", key[1]))
    rows = (
        SourceRow(key[1], key[0], covered(moments.get(key)), counted(tokens.get(key)), counted(events.get(key)))
        for key in keys
    )
    return KeptTimeline(memory_id, start_ns, bin_s * SECOND_NS, tuple(rows), tuple(path))


Stamps = dict[tuple[str, str], npt.NDArray[np.int64]]


def _tokens(memory: StreamMemory, after_ns: int, before_ns: int) -> Stamps:
    found: Stamps = {}
    for modality, name in TOKENS_OF.items():
        stamps, sources = memory.kept_stamps(name)
        inside = stamps >= after_ns
        if before_ns:
            inside &= stamps <= before_ns
        for number in np.unique(sources[inside]):
            found[modality, memory.sources[int(number)]] = stamps[inside & (sources == number)]
    return found


def _events(memory: StreamMemory, after_ns: int, before_ns: int) -> Stamps:
    found: dict[tuple[str, str], list[int]] = {}
    for modality, name in TOKENS_OF.items():
        for source, first_ns in memory.event_starts(name):
            if first_ns >= after_ns and not (before_ns and first_ns > before_ns):
                found.setdefault((modality, source), []).append(first_ns)
    return {key: np.array(stamps, np.int64) for key, stamps in found.items()}


def moment_near(memory: StreamMemory, evidence: EvidenceIndex, source: str, stamp_ns: int) -> Evidence | None:
    """The kept moment of a camera or microphone nearest to a stamp: picture and place; None when there is none.

    Its score is 1 when the memory still holds tokens of it, and 0 when only the trace in the index is left.
    """
    moment = evidence.nearest(source, stamp_ns)
    if moment is None:
        return None
    stamps, sources = memory.kept_stamps(TOKENS_OF[moment.modality])
    number = memory.sources.index(source) if source in memory.sources else -1
    inside = (sources == number) & (stamps >= moment.interval.start_ns) & (stamps <= moment.interval.end_ns)
    return Evidence(
        interval=moment.interval,
        modality=moment.modality,
        source=source,
        frame_id=moment.frame_id,
        score=float(inside.any()),
        pose=evidence.pose(moment.pose_id),
        thumbnail=moment.thumbnail,
    )
