"""What a memory still holds, as plain numbers in bins of time: for a timeline, and the robot's path for a map."""

from __future__ import annotations

from dataclasses import dataclass

from salmonn_node.stream.observations import Interval, Pose

DEFAULT_BINS, MAX_BINS, MAX_PATH_POSES = 120, 1000, 5000


@dataclass(frozen=True)
class SourceRow:
    """One camera or microphone; each tuple has one number per bin.

    Attributes:
        source: its name.
        modality: "vision" or "audio".
        moments: observed moments, of which a trace is kept, that touch the bin.
        kept_tokens: tokens that the memory holds now.
        events: things seen and sounds heard that begin in the bin; zeros without event heads.
    """

    source: str
    modality: str
    moments: tuple[int, ...]
    kept_tokens: tuple[int, ...]
    events: tuple[int, ...]


@dataclass(frozen=True)
class KeptTimeline:
    """What is still remembered.

    Attributes:
        memory_id: name of the memory.
        start_ns: stamp at which the first bin begins; 0 when nothing was observed.
        bin_ns: length of a bin, whole seconds.
        rows: one per camera and microphone.
        path: where the robot was, in time order, thinned; all poses in one frame of one map.
    """

    memory_id: str
    start_ns: int
    bin_ns: int
    rows: tuple[SourceRow, ...] = ()
    path: tuple[Pose, ...] = ()

    @property
    def bins(self) -> int:
        """Number of bins."""
        return max((len(row.moments) for row in self.rows), default=0)

    @property
    def span(self) -> Interval | None:
        """From the first bin's start to the last one's end; None when nothing was observed."""
        if not self.bins:
            return None
        return Interval(self.start_ns, self.start_ns + self.bins * self.bin_ns)
