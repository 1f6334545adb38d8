"""Sound of one sample rate without a break, resampled to 16 kHz in fixed blocks; it can be moved a little in time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import soxr

from salmonn_node.stream.observations import SAMPLE_RATE_HZ, SECOND_NS

Samples = npt.NDArray[np.float32]

SAMPLE_NS = SECOND_NS // SAMPLE_RATE_HZ  # exact: 62 500 ns
BLOCKS_PER_SECOND = 10
# Sound may become longer or shorter by 1 %: faster than any sound card drifts, too little to change a word.
SLIP_PER_SAMPLE = 0.01
SLIP_SAMPLES = SAMPLE_RATE_HZ  # what is due is spread over so much sound, so that corrections begin and end softly


class AudioSegment:
    """Input samples in, 16 kHz samples out, a tenth of a second of input at a time.

    The resampler sees the same blocks however the sound was cut, so the output is the same bytes. Up to one block and
    the filter's delay stay inside until more sound or `flush` brings them out.

    Args:
        start_ns: stamp of the first sample.
        rate_hz: samples per second of the input.

    Attributes:
        slipped_ns: by how much `push` has moved later sound, against counting.
    """

    def __init__(self, start_ns: int, rate_hz: int) -> None:
        self.start_ns = start_ns
        self.rate_hz = rate_hz
        self.slipped_ns = 0
        self._block = max(1, rate_hz // BLOCKS_PER_SECOND)
        self._waiting: list[Samples] = []
        self._num_waiting = 0
        self._num_in = 0
        self._num_out = 0
        self._resampler = None
        if rate_hz != SAMPLE_RATE_HZ:
            self._resampler = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")

    @property
    def end_ns(self) -> int:
        """Stamp just after the last sample that went in."""
        return self.start_ns + self._num_in * SECOND_NS // self.rate_hz + self.slipped_ns

    @property
    def output_end_ns(self) -> int:
        """Stamp just after the last sample that came out."""
        return self.start_ns + self._num_out * SAMPLE_NS

    def push(self, samples: Samples, due_ns: int = 0) -> list[tuple[int, Samples]]:
        """Take samples (n,) in; returns (start stamp, samples) of the blocks that became whole.

        `due_ns` is how far sound should move: the blocks become longer (positive) or shorter by up to 1 % until it
        has. Without it they are not touched.
        """
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
        end_ns = self.slipped_ns + due_ns
        for begin in range(0, whole, self._block):
            ready += self._emit(joined[begin : begin + self._block], end_ns - self.slipped_ns, last=False)
        return ready

    def flush(self) -> list[tuple[int, Samples]]:
        """Bring out what waits: the end of the segment."""
        rest = np.concatenate(self._waiting) if self._waiting else np.zeros(0, np.float32)
        self._waiting, self._num_waiting = [], 0
        return self._emit(rest, 0, last=True)

    def _emit(self, block: Samples, due_ns: int, *, last: bool) -> list[tuple[int, Samples]]:
        out = self._resampler.resample_chunk(block, last=last) if self._resampler is not None else block.copy()
        if len(out) == 0:
            return []
        due = abs(due_ns) // SAMPLE_NS
        slip = min(int(len(out) * SLIP_PER_SAMPLE), -(-due * len(out) // SLIP_SAMPLES), due)
        if slip:
            slip = slip if due_ns > 0 else -slip
            out = stretched(out, len(out) + slip)
            self.slipped_ns += slip * SAMPLE_NS
        start_ns = self.output_end_ns
        self._num_out += len(out)
        return [(start_ns, out)]


def stretched(samples: Samples, num: int) -> Samples:
    """(n,) samples as (num,) samples of the same sound, n and num at least 2; first and last sample stay.

    Cubic interpolation (Catmull and Rom 1974). The ends stay, so that neighbouring blocks join without a step.
    """
    last = len(samples) - 1
    at = np.linspace(0.0, last, num)
    before = np.minimum(at.astype(np.int64), last - 1)
    share = (at - before).astype(np.float32)
    a, b = samples[np.maximum(before - 1, 0)], samples[before]
    c, d = samples[before + 1], samples[np.minimum(before + 2, last)]
    curve = b + share * ((c - a) + share * ((2 * a - 5 * b + 4 * c - d) + share * (3 * (b - c) + d - a))) / 2
    return np.clip(curve, -1.0, 1.0).astype(np.float32)
