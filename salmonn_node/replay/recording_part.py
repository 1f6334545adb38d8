"""Which part of a recording is read: topics and a stretch of time, named as `ros2 bag play` names them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from salmonn_node.stream.observations import SECOND_NS


@dataclass(frozen=True)
class RecordingPart:
    """A part of a recording; by default all of it.

    Attributes:
        start_offset_s: seconds after the recording's start at which the stretch begins.
        playback_duration_s: length of the stretch in seconds; 0 reads to the end.
        topics: only these topics; empty means all.
        exclude_topics: not these, even if `topics` names them.

    Raises:
        ValueError: a negative or infinite time.
    """

    start_offset_s: float = 0.0
    playback_duration_s: float = 0.0
    topics: tuple[str, ...] = ()
    exclude_topics: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value in (("start-offset", self.start_offset_s), ("playback-duration", self.playback_duration_s)):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"--{name}: expected seconds, 0 or more, got {value:g}")

    @property
    def stretched(self) -> bool:
        """Whether only a stretch of time is read."""
        return bool(self.start_offset_s or self.playback_duration_s)

    def takes(self, topic: str) -> bool:
        """Whether a topic is read."""
        return topic not in self.exclude_topics and (not self.topics or topic in self.topics)

    def stretch(self, start_ns: int, end_ns: int) -> tuple[int, int]:
        """Log times (first, stop) of what is read of a recording whose messages lie in `start_ns`..`end_ns`.

        Raises:
            ValueError: the stretch begins behind the end.
        """
        first = start_ns + round(self.start_offset_s * SECOND_NS)
        if self.start_offset_s and first > end_ns:
            length_s = (end_ns - start_ns) / SECOND_NS
            raise ValueError(f"--start-offset {self.start_offset_s:g} s lies behind the end, after {length_s:.1f} s")
        stop = first + round(self.playback_duration_s * SECOND_NS) if self.playback_duration_s else end_ns + 1
        return first, min(stop, end_ns + 1)
