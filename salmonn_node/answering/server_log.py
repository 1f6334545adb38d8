"""The log as text: a numbered line for each entry, narrowed by window and likeness when it is too long to send."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from salmonn_node.memory.log_entries import SOUND, VIEW, LogEntry
from salmonn_node.stream.answers import Question
from salmonn_node.stream.observations import SECOND_NS, Pose

COVER = 32  # pictures of the fallback


@dataclass(frozen=True)
class SentLog:
    """A log as it is sent.

    Attributes:
        text: one line an entry.
        entries: by the number that their line begins with.
        of: how many entries there were before the log was narrowed.
    """

    text: str
    entries: dict[int, LogEntry]
    of: int

    @property
    def narrowed(self) -> str:
        """What was left out, "" when nothing was."""
        return f"read {len(self.entries)} of {self.of} events" if len(self.entries) < self.of else ""


def asked_about(entries: Sequence[LogEntry], question: Question, sources: Sequence[str]) -> list[LogEntry]:
    """The entries within a question's window and sources; `sources` are the memory's names by id."""
    return [
        e
        for e in entries
        if e.last_ns >= question.after_ns
        and (not question.before_ns or e.first_ns <= question.before_ns)
        and (not question.sources or sources[e.source] in question.sources)
    ]


def write_log(
    entries: Sequence[LogEntry],
    most_chars: int,
    *,
    start_ns: int,
    sources: Sequence[str],
    pose_of: Callable[[LogEntry], Pose | None],
) -> SentLog:
    """Write entries as lines with numbers.

    A log that is too long is narrowed: of each kind of alike entries the first and the last stay, then as many others
    as fit, the newest first.

    Args:
        entries: in order of time.
        most_chars: longest text.
        start_ns: stamp that times count from.
        sources: names of cameras and microphones by id.
        pose_of: the robot's pose at an entry's beginning, or None.
    """
    lines = [_line(e, start_ns, sources[e.source], pose_of(e)) for e in entries]
    width = len(str(len(entries))) + 4  # number and separators
    chosen, used = [], 0
    for row in _order(entries):
        if used + len(lines[row]) + width <= most_chars:
            chosen.append(row)
            used += len(lines[row]) + width
    numbered = {number: entries[row] for number, row in enumerate(sorted(chosen), 1)}
    text = "\n".join(f"{number} | {lines[row]}" for number, row in enumerate(sorted(chosen), 1))
    return SentLog(text, numbered, len(entries))


def _order(entries: Sequence[LogEntry]) -> list[int]:
    """Rows, the ones most worth sending first."""
    last: dict[tuple[str, int], int] = {}
    first: dict[tuple[str, int], int] = {}
    for row, e in enumerate(entries):
        kind = (e.what, e.kind if e.kind >= 0 else -1 - row)  # what resembles nothing is a kind of its own
        first.setdefault(kind, row)
        last[kind] = row
    views = {row for row, e in enumerate(entries) if e.what == VIEW}
    ends = [row for row in (*sorted(last.values(), reverse=True), *sorted(first.values(), reverse=True))]
    order = [row for row in ends if row not in views] + [row for row in ends if row in views]
    return list(dict.fromkeys([*order, *range(len(entries) - 1, -1, -1)]))


def cover(entries: Sequence[LogEntry], most: int = COVER) -> list[LogEntry]:
    """Entries whose pictures show most of what there was, when nothing is known of the question; in order of time."""
    rows = [row for row in _order(entries) if entries[row].pictures][:most]
    return [entries[row] for row in sorted(rows)]


def _line(entry: LogEntry, start_ns: int, source: str, pose: Pose | None) -> str:
    parts = [entry.what, source, clock(entry.first_ns - start_ns)]
    if entry.what != VIEW:
        parts[-1] += f" to {clock(entry.last_ns - start_ns)}"
    if pose is not None:
        parts.append(f"at {pose.position[0]:.1f} {pose.position[1]:.1f}")
    if entry.kind >= 0:
        parts.append(f"kind {entry.kind}")
    if entry.what == SOUND and entry.repeats > 1:
        parts.append(f"{entry.repeats} times")
    if entry.caption:
        parts.append(entry.caption)
    return " | ".join(parts)


def clock(ns: int) -> str:
    """Nanoseconds as h:mm:ss."""
    seconds = max(0, ns) // SECOND_NS
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
