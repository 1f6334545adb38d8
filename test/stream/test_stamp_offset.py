"""A steady offset of one source's clock is taken from its stamps, and from nobody else's."""

from __future__ import annotations

import numpy as np
import pytest

from salmonn_node.stream.observations import SECOND_NS, AudioChunk, EncodedFrame, Frame, Pose
from salmonn_node.stream.stamp_offset import corrected, parse_offset

T = 100 * SECOND_NS
IMAGE = np.zeros((2, 2, 3), np.uint8)
OBSERVATIONS = [
    Frame(T, "front", IMAGE),
    EncodedFrame(T, "front", lambda: IMAGE),
    AudioChunk(T, "mic", np.zeros(10, np.float32)),
    Pose(T, "map", np.zeros(3), np.array([0.0, 0, 0, 1])),
]


@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_only_the_named_source_moves(observation) -> None:
    name = getattr(observation, "source", "pose")
    assert corrected(observation, {name: -20.5}).stamp_ns == T - 20 * SECOND_NS - SECOND_NS // 2
    assert corrected(observation, {"another": -20.5}) is observation
    assert corrected(observation, {name: 0.0}) is observation


def test_what_is_no_offset_is_refused() -> None:
    assert parse_offset("front=-20.0") == ("front", -20.0)
    for text in ("front", "front=", "=3", "front=nan", "front=1e12", "front=x", ""):
        with pytest.raises(ValueError, match="--stamp-offset: expected SOURCE=SECONDS"):
            parse_offset(text)
