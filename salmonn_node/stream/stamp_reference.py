"""Where stamps say that a microphone's sound lies, against counting its samples: smoothed, as stamps come late."""

from __future__ import annotations

from collections import deque

from salmonn_node.stream.observations import SECOND_NS

WINDOW_NS = 4 * SECOND_NS
BUCKET_NS = SECOND_NS // 10
SURE_NS = SECOND_NS  # that all stamps are late is believed after so much sound


class StampReference:
    """The leads of the last seconds: how much later each chunk's stamp is than its place by counting.

    A chunk may wait in a driver or on a network before it is stamped. So a lead may be too large, but not too small:
    the smallest of the last seconds is the one to believe, as in other clock filters that take the minimum of delays
    (RFC 5905, section 10). Its slow change is the drift of the sound card.

    Args:
        dead_ns: leads this small call for no correction.
    """

    def __init__(self, dead_ns: int) -> None:
        self._dead_ns = dead_ns
        self._moved_ns = 0
        self._counted_ns = 0
        self._buckets: deque[tuple[int, int, int]] = deque()  # (number, lowest, highest), without later corrections

    def note(self, duration_ns: int, lead_ns: int | None) -> None:
        """Count a chunk of `duration_ns`, and remember its lead unless it is None: a chunk that is known to be late."""
        number = self._counted_ns // BUCKET_NS
        self._counted_ns += duration_ns
        if lead_ns is not None:
            low = high = lead_ns + self._moved_ns
            if self._buckets and self._buckets[-1][0] == number:
                _, lowest, highest = self._buckets.pop()
                low, high = min(low, lowest), max(high, highest)
            self._buckets.append((number, low, high))
        while self._buckets and self._buckets[0][0] < number - WINDOW_NS // BUCKET_NS:
            self._buckets.popleft()

    def moved(self, by_ns: int) -> None:
        """Tell that sound is now placed later by so much."""
        self._moved_ns += by_ns

    def clear(self) -> None:
        """Forget the leads: sound was placed anew."""
        self._buckets.clear()

    @property
    def highest_ns(self) -> int:
        """The largest lead of the window, at least 0."""
        return max([0, *(high - self._moved_ns for _, _, high in self._buckets)])

    @property
    def due_ns(self) -> int:
        """By how much sound should move to agree with the stamps; 0 while the difference is small."""
        if not self._buckets:
            return 0
        lowest = min(low for _, low, _ in self._buckets) - self._moved_ns
        if lowest > self._dead_ns:
            # All were late so far; one of the next may not be.
            enough = (self._buckets[-1][0] - self._buckets[0][0]) * BUCKET_NS >= SURE_NS
            return lowest - self._dead_ns if enough else 0
        return min(0, lowest + self._dead_ns)
