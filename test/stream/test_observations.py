"""Intervals and spans keep their promises."""

import numpy as np
import pytest

from salmonn_node.stream.observations import AudioSpan, Interval


def test_interval_refuses_to_end_before_it_starts():
    with pytest.raises(ValueError, match="ends before it starts"):
        Interval(2, 1)


def test_audio_span_ends_after_its_last_sample():
    assert AudioSpan(0, "mic", np.zeros(16_000, np.float32)).end_ns == 1_000_000_000
