"""A moment of the stream: which tokens it became, when it was observed, by which sensor and where."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from salmonn_node.stream.observations import Interval

MODALITIES = ("vision", "audio")


@dataclass(frozen=True)
class Moment:
    """One temporal patch, or about two seconds of sound: what an answer can point to as evidence.

    Attributes:
        modality: one of MODALITIES.
        token_start, token_end: original token indices of that modality, half open.
        interval: when it was observed.
        source: camera or microphone name.
        frame_id: the sensor's frame.
        pose_id: id of the robot's pose in the evidence index, -1 when unknown.
        thumbnail: JPEG bytes, empty when there is none.
    """

    modality: str
    token_start: int
    token_end: int
    interval: Interval
    source: str
    frame_id: str = ""
    pose_id: int = -1
    thumbnail: bytes = b""

    def to_state(self) -> list[Any]:
        """JSON values from which `from_state` makes the same moment."""
        interval = [self.interval.start_ns, self.interval.end_ns]
        picture = base64.b64encode(self.thumbnail).decode()
        return [self.modality, self.token_start, self.token_end, interval, self.source, self.frame_id, self.pose_id,
                picture]  # fmt: skip

    @classmethod
    def from_state(cls, state: list[Any]) -> Moment:
        """The moment that `to_state` described; raises TypeError or ValueError when the values are malformed."""
        modality, token_start, token_end, (start_ns, end_ns), source, frame_id, pose_id, picture = state
        interval, thumbnail = Interval(start_ns, end_ns), base64.b64decode(picture)
        return cls(modality, token_start, token_end, interval, source, frame_id, pose_id, thumbnail)
