"""Statistics of one input topic: rate, delay, missing messages, callback times. No rclpy."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

import numpy as np

SECOND_NS = 1_000_000_000
WINDOW = 300  # messages: 10 s of a camera at 30 Hz, 6 s of sound in 20 ms chunks

# Fast DDS silently drops a best-effort message that is larger than its shared-memory segment.
FAST_DDS_SEGMENT_BYTES = 512 * 1024


@dataclass(frozen=True)
class InputReport:
    """Statistics of an input over the last WINDOW messages; `received` and `largest_bytes` since the start.

    Attributes:
        received: number of messages since the start.
        rate_hz: arrivals per second; 0 when nothing came for 3 s.
        silent_s: seconds since the last message, infinite before the first.
        delay_s: median of ROS time on arrival minus header stamp, seconds.
        missing_share: 0..1, the share of messages that should have come, judged by the stamps, but did not.
        largest_bytes: size of the largest message since the start.
        callback_ms: median and 99th percentile of callback durations, including waits for a core and for locks.
        callback_cpu_ms: median and 99th percentile of the callbacks' CPU time.
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
        """Whether large messages are missing, as with a best-effort publisher and Fast DDS's default segment size."""
        return self.missing_share > 0.2 and self.largest_bytes > FAST_DDS_SEGMENT_BYTES


class InputMonitor:
    """Collects the statistics of one topic: its callback writes them, the diagnostics timer reads them."""

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
        """Note a message with its header stamp and the current ROS time, both in ns."""
        with self._lock:
            self._received += 1
            self._largest_bytes = max(self._largest_bytes, size_bytes)
            self._arrivals.append(time.monotonic())
            if self._stamps and stamp_ns < self._stamps[-1]:
                self._stamps.clear()  # the clock went back or messages are out of order; these are not missing messages
            self._stamps.append(stamp_ns)
            if stamp_ns > 0 and now_ns > 0:
                self._delays.append((now_ns - stamp_ns) / SECOND_NS)

    def report(self) -> InputReport:
        """The current statistics."""
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
        """Estimate the share of missing messages: short steps between stamps give the period, longer ones are gaps."""
        steps_s = np.diff(stamps) / SECOND_NS
        steps_s = steps_s[steps_s > 0]
        if len(steps_s) < 10:
            return 0.0
        period_s = self._expected_s or float(np.percentile(steps_s, 5))
        promised = np.maximum(1, np.round(steps_s / period_s)).sum()
        return float(1.0 - len(steps_s) / promised)


def _quantiles_ms(seconds: deque[float]) -> tuple[float, float]:
    """Median and 99th percentile in ms; zeros for an empty list."""
    half, most = np.percentile(list(seconds), [50, 99]) if seconds else (0.0, 0.0)
    return 1e3 * float(half), 1e3 * float(most)
