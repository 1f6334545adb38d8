"""A circuit breaker: after some failures in a row a server is left alone for a while, then tried with one request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

FAILURES, REST_S, LONGEST_REST_S = 3, 5.0, 60.0


class CircuitBreaker:
    """Counts failures in a row. Any thread may use it.

    Args:
        failures: so many in a row open the breaker.
        rest_s: seconds until the next try; doubled after each try that fails, up to LONGEST_REST_S.
        now: the clock, seconds.

    Attributes:
        opened: how often it opened.
    """

    def __init__(
        self, failures: int = FAILURES, rest_s: float = REST_S, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._failures, self._rest_s, self._now = failures, rest_s, now
        self._lock = threading.Lock()
        self._row = 0
        self._until = 0.0
        self._pause_s = rest_s
        self.opened = 0

    def wait_s(self) -> float:
        """Seconds until a request may be tried; 0 when it may be tried now. A try must end in `note`."""
        with self._lock:
            if self._row < self._failures:
                return 0.0
            left = self._until - self._now()
            if left <= 0:  # this request is the try: others wait for what comes of it
                self._until = self._now() + self._pause_s
                return 0.0
            return left

    def note(self, worked: bool) -> None:
        """Tell how a request ended."""
        with self._lock:
            if worked:
                self._row, self._pause_s = 0, self._rest_s
                return
            self._row += 1
            if self._row >= self._failures:
                self.opened += 1
                self._pause_s = self._rest_s if self._row == self._failures else min(2 * self._pause_s, LONGEST_REST_S)
                self._until = self._now() + self._pause_s

    @property
    def state(self) -> str:
        """The state in words: "closed", or how long the server is left alone."""
        with self._lock:
            if self._row < self._failures:
                return "closed" if not self._row else f"closed, {self._row} failures in a row"
            left = max(0.0, self._until - self._now())
            return f"open after {self._row} failures in a row, next try in {left:.0f} s"
