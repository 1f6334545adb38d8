"""A moment of the stream: which tokens it became, when it was observed, by which sensor and where."""

from __future__ import annotations

from dataclasses import dataclass

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
