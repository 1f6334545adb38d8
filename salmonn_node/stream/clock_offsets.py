"""Describes in words by how much the clock of each source is off, from its refused and accepted stamps."""

from __future__ import annotations

from dataclasses import dataclass, field

from salmonn_node.stream.observations import SECOND_NS

TOLD_S = 2.0  # a stamp may lie so far from others: a slow encoder, a second of sound in one message
STEADY_S = 2.0  # stamps that vary by more have no steady offset, and no parameter corrects them
STRAY = 3  # so many refused stamps are no longer strays: the source's clock is told as faulty
COMPARED = 20  # so many accepted stamps show an offset


@dataclass
class _Range:
    """Smallest and largest offset of a source's stamps from the others, in ns, and how many there were."""

    low_ns: int
    high_ns: int
    count: int = 0

    def add(self, offset_ns: int) -> None:
        self.low_ns, self.high_ns = min(self.low_ns, offset_ns), max(self.high_ns, offset_ns)
        self.count += 1


@dataclass
class ClockOffsets:
    """Collects offsets between the stamps of sources, in order of arrival. It decides nothing.

    An accepted stamp is compared with the stamps of all sources that sent something since this source did. The
    smallest difference counts. So a source is reported only if it agrees with no other source.
    """

    _refused: dict[str, _Range] = field(default_factory=dict)
    _accepted: dict[str, _Range] = field(default_factory=dict)
    _since: dict[str, dict[str, int]] = field(default_factory=dict)  # source -> stamps of others since it spoke

    def refuse(self, source: str, offset_ns: int) -> None:
        """Note a refused stamp, which lies `offset_ns` after the newest of all sources."""
        self._refused.setdefault(source, _Range(offset_ns, offset_ns)).add(offset_ns)

    def accept(self, source: str, stamp_ns: int) -> None:
        """Note an accepted stamp; a few refused ones before it were strays."""
        if source in self._refused and self._refused[source].count < STRAY:
            del self._refused[source]
        since = self._since.setdefault(source, {})
        if since:
            offset_ns = min((stamp_ns - other_ns for other_ns in since.values()), key=abs)
            self._accepted.setdefault(source, _Range(offset_ns, offset_ns)).add(offset_ns)
            since.clear()
        for other, stamps in self._since.items():
            if other != source:
                stamps[source] = stamp_ns

    def forgive(self, source: str) -> None:
        """Forget a source's refused stamps: time has moved to where they lie."""
        self._refused.pop(source, None)

    def clear(self) -> None:
        """Forget everything: a new session begins."""
        self._refused.clear()
        self._accepted.clear()
        self._since.clear()

    def of(self, source: str) -> str:
        """What is wrong with a source's clock, in words; "" when nothing is known to be."""
        if source in self._refused:
            return self._words(source, self._refused[source], "the other sources")
        seen = self._accepted.get(source)
        if (
            seen is None
            or seen.count < COMPARED
            or seen.low_ns <= TOLD_S * SECOND_NS
            and seen.high_ns >= -TOLD_S * SECOND_NS
        ):
            return ""
        if len(self._accepted) > 2:
            return self._words(source, seen, "the other sources") + "; its observations are taken as stamped"
        other = next((name for name in self._since if name != source), "the other source")
        return self._words(source, seen, other) + "; which of the two is right is not known, both are taken as stamped"

    def _words(self, source: str, seen: _Range, others: str) -> str:
        low_s, high_s = seen.low_ns / SECOND_NS, seen.high_ns / SECOND_NS
        middle_s = (low_s + high_s) / 2
        side = "ahead of" if middle_s > 0 else "behind"
        if high_s - low_s > STEADY_S:
            near_s, far_s = sorted((abs(low_s), abs(high_s)))
            return f"its stamps lie {near_s:.1f} to {far_s:.1f} s {side} {others}, at no steady offset"
        return (
            f"its stamps lie {abs(middle_s):.1f} s {side} {others}; "
            f"{source}.stamp_offset_s: {-middle_s:.1f} corrects that (replay: --stamp-offset {source}={-middle_s:.1f})"
        )
