"""What one input topic looks like from here: rate, delay, holes between stamps, time in callbacks. No rclpy."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

import numpy as np

SECOND_NS = 1_000_000_000
WINDOW = 300  # messages: 10 s of a camera at 30 Hz, 6 s of sound in 20 ms chunks

# A best-effort message larger than Fast DDS' shared-memory segment is dropped without a word.
FAST_DDS_SEGMENT_BYTES = 512 * 1024


@dataclass(frozen=True)
class InputReport:
    """State of an input over the last WINDOW messages, or of all its life where it says so.

    Attributes:
        received: messages, all its life.
        rate_hz: arrivals per second; 0 when nothing came for 3 s.
        silent_s: seconds since the last message, infinite before the first.
        delay_s: median of now minus header stamp, ROS time.
        missing_share: 0..1, how many of the messages that the stamps promise did not arrive.
        largest_bytes: largest message.
        callback_ms: median and 99th percentile on the clock, waits for a core and for locks included.
        callback_cpu_ms: the same of its thread's own work.
    """

    received: int
    rate_hz: float
    silent_s: float
    delay_s: float
    missing_share: float
    largest_bytes: int
    callback_ms: tuple[float, float]
    callback_cpu_ms: tuple[float, float] = (0.0, 0.0)

    @property
    def looks_like_fast_dds_drops(self) -> bool:
        """Whether large messages go missing, as they do when a best-effort publisher keeps Fast DDS' small segment."""
        return self.missing_share > 0.2 and self.largest_bytes > FAST_DDS_SEGMENT_BYTES


class InputMonitor:
    """Watches one topic; called from its callback, read by the diagnostics timer."""

    def __init__(self, name: str, expected_rate_hz: float = 0.0) -> None:
        self.name = name
        self.last_error = ""
        self._expected_s = 1.0 / expected_rate_hz if expected_rate_hz > 0 else None
        self._lock = threading.Lock()
        self._received = 0
        self._largest_bytes = 0
        self._arrivals: deque[float] = deque(maxlen=WINDOW)
        self._stamps: deque[int] = deque(maxlen=WINDOW)
        self._delays: deque[float] = deque(maxlen=WINDOW)
        self.callback_s: deque[float] = deque(maxlen=10 * WINDOW)
        self.callback_cpu_s: deque[float] = deque(maxlen=10 * WINDOW)

    def arrived(self, stamp_ns: int, now_ns: int, size_bytes: int) -> None:
        """Note a message with its header stamp and the ROS time, both ns."""
        with self._lock:
            self._received += 1
            self._largest_bytes = max(self._largest_bytes, size_bytes)
            self._arrivals.append(time.monotonic())
            if self._stamps and stamp_ns < self._stamps[-1]:
                self._stamps.clear()  # the clock went back, or messages came out of order: no holes from that
            self._stamps.append(stamp_ns)
            if stamp_ns > 0 and now_ns > 0:
                self._delays.append((now_ns - stamp_ns) / SECOND_NS)

    def report(self) -> InputReport:
        """Figures of this moment."""
        with self._lock:
            arrivals, stamps = np.array(self._arrivals), np.array(self._stamps, np.int64)
            delays = np.array(self._delays)
            callback_ms, callback_cpu_ms = _quantiles_ms(self.callback_s), _quantiles_ms(self.callback_cpu_s)
            received, largest = self._received, self._largest_bytes
        silent_s = time.monotonic() - arrivals[-1] if len(arrivals) else float("inf")
        rate_hz = 0.0
        if len(arrivals) > 1 and silent_s < 3.0:
            rate_hz = (len(arrivals) - 1) / max(arrivals[-1] - arrivals[0], 1e-9)
        return InputReport(
            received,
            float(rate_hz),
            float(silent_s),
            float(np.median(delays)) if len(delays) else 0.0,
            self._missing_share(stamps),
            largest,
            callback_ms,
            callback_cpu_ms,
        )

    def _missing_share(self, stamps: np.ndarray) -> float:
        """Compare the messages with what their own rhythm promises: the short steps between stamps are the rhythm."""
        steps_s = np.diff(stamps) / SECOND_NS
        steps_s = steps_s[steps_s > 0]
        if len(steps_s) < 10:
            return 0.0
        period_s = self._expected_s or float(np.percentile(steps_s, 5))
        promised = np.maximum(1, np.round(steps_s / period_s)).sum()
        return float(1.0 - len(steps_s) / promised)


def _quantiles_ms(seconds: deque[float]) -> tuple[float, float]:
    """Median and 99th percentile in ms, zeros of nothing."""
    half, most = np.percentile(list(seconds), [50, 99]) if seconds else (0.0, 0.0)
    return 1e3 * float(half), 1e3 * float(most)
