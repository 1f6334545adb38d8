"""The sound of an interval of a recording, as one would hear it: 16 kHz, mono, gaps as silence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from salmonn_node.answering.grounding import Grounding
from salmonn_node.replay.bag_stream import BagStream
from salmonn_node.replay.job import JobSettings, open_recording
from salmonn_node.stream.audio_timeline import AudioTimeline
from salmonn_node.stream.observations import SAMPLE_RATE_HZ, SECOND_NS, AudioChunk, AudioSpan, Interval

MAX_S = 60.0
# The recorder's clock and the stamps may differ by this much; and the timeline needs some sound before the interval.
SLACK_NS = 30 * SECOND_NS


def recorded_sound(recording: Path, settings: JobSettings, source: str, interval: Interval) -> npt.NDArray[np.float32]:
    """Read the sound of one microphone.

    Args:
        recording: a bag or a video.
        settings: those with which its memory was made.
        source: name of the microphone.
        interval: what to read, in stamps; at most MAX_S of it.

    Returns:
        (N,) float32, full scale -1..1, at 16 kHz; empty when there was no sound.

    Raises:
        ValueError: the recording cannot be read.
    """
    stream, _ = open_recording(recording, settings, Grounding())
    end_ns = min(interval.end_ns, interval.start_ns + round(MAX_S * SECOND_NS))
    with closing(stream):
        if isinstance(stream, BagStream):
            chunks: Iterable[AudioChunk] = stream.sound(source, interval.start_ns - SLACK_NS, end_ns + SLACK_NS)
        else:
            chunks = (one for _, one in stream if isinstance(one, AudioChunk) and one.source == source)
        return _cut(_placed(source, chunks, end_ns), Interval(interval.start_ns, end_ns))


def _placed(source: str, chunks: Iterable[AudioChunk], end_ns: int) -> Iterator[AudioSpan]:
    timeline = AudioTimeline(source)
    for chunk in chunks:
        yield from timeline.push(chunk)[1]
        if chunk.stamp_ns > end_ns + 2 * SECOND_NS:
            return
    yield from timeline.finish()


def _cut(spans: Iterable[AudioSpan], interval: Interval) -> npt.NDArray[np.float32]:
    """Put spans where they belong in the interval; what nobody heard is silence."""
    out = np.zeros(round(interval.duration_s * SAMPLE_RATE_HZ), np.float32)
    heard = False
    for span in spans:
        at = round((span.start_ns - interval.start_ns) / SECOND_NS * SAMPLE_RATE_HZ)
        samples = span.samples[max(0, -at) :][: max(0, len(out) - max(0, at))]
        if len(samples):
            heard = True
            out[max(0, at) : max(0, at) + len(samples)] = samples
    return out if heard else out[:0]
