"""Correct the stamps of a source whose clock is off by a steady offset, for live input and recordings alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from salmonn_node.stream.observations import SECOND_NS, AudioChunk, EncodedFrame, Frame, Pose

Stamped = TypeVar("Stamped", bound=Frame | EncodedFrame | AudioChunk | Pose)
POSE_SOURCE = "pose"
MAX_OFFSET_S = 4e9  # stamps hold 32 bits of seconds


def corrected(observation: Stamped, offsets_s: Mapping[str, float]) -> Stamped:
    """The observation with its source's offset (seconds) added to its stamp; all poses are of source "pose"."""
    source = POSE_SOURCE if isinstance(observation, Pose) else observation.source
    offset_s = offsets_s.get(source, 0.0)
    if not offset_s:
        return observation
    return replace(observation, stamp_ns=observation.stamp_ns + round(offset_s * SECOND_NS))


def parse_offset(text: str) -> tuple[str, float]:
    """Read SOURCE=SECONDS; raises ValueError when the text is something else."""
    source, _, number = text.partition("=")
    try:
        offset_s = float(number)
    except ValueError:
        offset_s = math.nan
    if not source or not abs(offset_s) <= MAX_OFFSET_S:
        raise ValueError(f"--stamp-offset: expected SOURCE=SECONDS, such as front=-20.0, got {text!r}")
    return source, offset_s
