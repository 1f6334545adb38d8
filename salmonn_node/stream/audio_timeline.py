"""One microphone's sound on one gap-aware 16 kHz mono timeline, bit-identical however it was cut into messages."""

from __future__ import annotations

import enum
from collections import Counter

import numpy as np
import numpy.typing as npt
import soxr

from salmonn_node.stream.observations import SAMPLE_RATE_HZ, SECOND_NS, AudioChunk, AudioSpan

SAMPLE_NS = SECOND_NS // SAMPLE_RATE_HZ  # exact: 62 500 ns
BLOCKS_PER_SECOND = 10
MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 384_000


class AudioFate(enum.StrEnum):
    """What became of a chunk or of a part of it; every value but TAKEN is a reason that is counted."""

    TAKEN = "taken"
    EMPTY = "audio_empty"
    STAMP_ZERO = "stamp_zero"
    OUT_OF_ORDER = "stamp_out_of_order"
    NOT_FINITE = "audio_not_finite"
    BAD_RATE = "audio_bad_rate"


class AudioTimeline:
    """Resamples, mixes down and places the chunks of one source.

    Time is kept in samples, not in stamps: a chunk whose stamp differs from the expected one by at most `jitter_s` is
    taken as following on. A longer hole of up to `max_gap_s` is filled with silence; a longer one ends the span and
    starts a new one. Where chunks overlap, the samples that were heard already are cut off. Sound is resampled in
    blocks of a tenth of a second of input, so the resampler sees the same calls however the messages were cut; up to
    one block and the filter's delay wait inside until more sound, a gap or `finish` brings them out.

    Attributes:
        counts: events by name: gaps_filled, spans_started, rate_changes, overlaps, and the refusals of AudioFate.
        silence_s: seconds of silence filled in so far.
    """

    def __init__(self, source: str, *, max_gap_s: float = 1.0, jitter_s: float = 0.04) -> None:
        """Raises ValueError unless 0 <= jitter_s <= max_gap_s."""
        if not 0 <= jitter_s <= max_gap_s:
            raise ValueError(f"jitter_s must lie in 0..max_gap_s, got jitter_s={jitter_s}, max_gap_s={max_gap_s}")
        self.source = source
        self.counts: Counter[str] = Counter()
        self.silence_s = 0.0
        self._max_gap_ns = round(max_gap_s * SECOND_NS)
        self._jitter_ns = round(jitter_s * SECOND_NS)
        self._segment: _Segment | None = None
        self._frame_id = ""

    @property
    def end_ns(self) -> int:
        """Stamp just after the last sample that was taken in; 0 before the first."""
        return self._segment.end_ns if self._segment else 0

    def push(self, chunk: AudioChunk) -> tuple[AudioFate, list[AudioSpan]]:
        """Take one chunk in; returns its fate and the pieces that became ready, in order.

        Consecutive pieces of one span touch exactly: the next one's `start_ns` is the last one's `end_ns`.
        A refused chunk leaves the timeline unchanged.
        """
        refusal = _refusal(chunk)
        if refusal is not None:
            self.counts[refusal.value] += 1
            return refusal, []
        rate_hz = int(chunk.rate_hz)
        samples = _mono(chunk.samples)
        spans: list[AudioSpan] = []
        segment = self._segment
        if segment is not None:
            lead_ns = chunk.stamp_ns - segment.end_ns
            if lead_ns < -self._jitter_ns:
                heard = -(lead_ns * rate_hz // SECOND_NS)
                if heard >= len(samples):
                    self.counts[AudioFate.OUT_OF_ORDER.value] += 1
                    return AudioFate.OUT_OF_ORDER, []
                self.counts["overlaps"] += 1
                samples = samples[heard:]
            elif lead_ns > self._max_gap_ns:
                spans += self.finish()
                segment = None
            elif lead_ns > self._jitter_ns:
                self.counts["gaps_filled"] += 1
                silence = round(lead_ns * segment.rate_hz / SECOND_NS)
                self.silence_s += silence / segment.rate_hz
                spans += self._spans(segment.push(np.zeros(silence, np.float32)))
        self._frame_id = chunk.frame_id
        if segment is not None and segment.rate_hz != rate_hz:
            # The span goes on: the new rate's samples follow the flushed ones on the same 16 kHz grid.
            self.counts["rate_changes"] += 1
            spans += self._spans(segment.flush())
            segment = _Segment(segment.output_end_ns, rate_hz)
        elif segment is None:
            self.counts["spans_started"] += 1
            segment = _Segment(chunk.stamp_ns, rate_hz)
        self._segment = segment
        spans += self._spans(segment.push(samples))
        return AudioFate.TAKEN, spans

    def finish(self) -> list[AudioSpan]:
        """End the span: returns what was still waiting. The next chunk starts a new span."""
        segment, self._segment = self._segment, None
        return self._spans(segment.flush()) if segment is not None else []

    def _spans(self, pieces: list[tuple[int, npt.NDArray[np.float32]]]) -> list[AudioSpan]:
        return [AudioSpan(start_ns, self.source, samples, self._frame_id) for start_ns, samples in pieces]


class _Segment:
    """Sound of one rate without a break: input samples in, 16 kHz samples out, block by block."""

    def __init__(self, start_ns: int, rate_hz: int) -> None:
        self.start_ns = start_ns
        self.rate_hz = rate_hz
        self._block = max(1, rate_hz // BLOCKS_PER_SECOND)
        self._waiting: list[npt.NDArray[np.float32]] = []
        self._num_waiting = 0
        self._num_in = 0
        self._num_out = 0
        self._resampler = None
        if rate_hz != SAMPLE_RATE_HZ:
            self._resampler = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")

    @property
    def end_ns(self) -> int:
        return self.start_ns + self._num_in * SECOND_NS // self.rate_hz

    @property
    def output_end_ns(self) -> int:
        return self.start_ns + self._num_out * SAMPLE_NS

    def push(self, samples: npt.NDArray[np.float32]) -> list[tuple[int, npt.NDArray[np.float32]]]:
        self._num_in += len(samples)
        self._waiting.append(samples)
        self._num_waiting += len(samples)
        if self._num_waiting < self._block:
            return []
        joined = np.concatenate(self._waiting)
        whole = len(joined) - len(joined) % self._block
        self._waiting = [joined[whole:].copy()]
        self._num_waiting = len(joined) - whole
        ready = []
        for begin in range(0, whole, self._block):
            ready += self._resample(joined[begin : begin + self._block], last=False)
        return ready

    def flush(self) -> list[tuple[int, npt.NDArray[np.float32]]]:
        rest = np.concatenate(self._waiting) if self._waiting else np.zeros(0, np.float32)
        self._waiting, self._num_waiting = [], 0
        return self._resample(rest, last=True)

    def _resample(self, block: npt.NDArray[np.float32], *, last: bool) -> list[tuple[int, npt.NDArray[np.float32]]]:
        out = self._resampler.resample_chunk(block, last=last) if self._resampler is not None else block.copy()
        if len(out) == 0:
            return []
        start_ns = self.output_end_ns
        self._num_out += len(out)
        return [(start_ns, out)]


def _refusal(chunk: AudioChunk) -> AudioFate | None:
    if chunk.stamp_ns <= 0:
        return AudioFate.STAMP_ZERO
    if not MIN_RATE_HZ <= chunk.rate_hz <= MAX_RATE_HZ:
        return AudioFate.BAD_RATE
    if chunk.samples.size == 0:
        return AudioFate.EMPTY
    if not np.isfinite(chunk.samples).all():
        return AudioFate.NOT_FINITE
    return None


def _mono(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Mean over channels of (n, channels) or (n,), clipped to -1..1; column by column, so that no cut changes a sum."""
    if samples.ndim == 1:
        return np.clip(samples, -1.0, 1.0).astype(np.float32, copy=False)
    total = samples[:, 0].astype(np.float32)
    for channel in range(1, samples.shape[1]):
        total = total + samples[:, channel]
    return np.clip(total / np.float32(samples.shape[1]), -1.0, 1.0)
