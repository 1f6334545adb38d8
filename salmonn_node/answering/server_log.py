"""The log as text: a numbered line for each entry, narrowed by window and likeness when it is too long to send."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from salmonn_node.memory.log_entries import SOUND, VIEW, LogEntry
from salmonn_node.stream.answers import Question
from salmonn_node.stream.observations import SECOND_NS, Pose

COVER = 32  # pictures of the fallback
# Most lines that stay because they share words with the question.
MOST_SPEAKING = 64
WORD = re.compile(r"\w{3,}")


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
    question: str = "",
) -> SentLog:
    """Write entries as lines with numbers.

    A log that is too long is narrowed. In this order stay, as far as they fit: of each kind of alike entries the first
    and the last; lines that share words with the question; of entries with the same words the first and the last, views
    behind the others; the rest, the newest first.

    Args:
        entries: in order of time.
        most_chars: longest text.
        start_ns: stamp that times count from.
        sources: names of cameras and microphones by id.
        pose_of: the robot's pose at an entry's beginning, or None.
        question: its words.
    """
    lines = [_line(e, start_ns, sources[e.source], pose_of(e)) for e in entries]
    width = len(str(len(entries))) + 4  # number and separators
    chosen, used = [], 0
    for row in _order(entries, question):
        if used + len(lines[row]) + width <= most_chars:
            chosen.append(row)
            used += len(lines[row]) + width
    numbered = {number: entries[row] for number, row in enumerate(sorted(chosen), 1)}
    text = "\n".join(f"{number} | {lines[row]}" for number, row in enumerate(sorted(chosen), 1))
    return SentLog(text, numbered, len(entries))


def _order(entries: Sequence[LogEntry], question: str = "") -> list[int]:
    """Rows, the ones most worth sending first."""
    views = {row for row, e in enumerate(entries) if e.what == VIEW}
    # What resembles nothing is a kind of its own.
    alike = _ends([(e.what, e.kind if e.kind >= 0 else -1 - row) for row, e in enumerate(entries)])
    worded = _ends([(e.what, e.caption or str(row)) for row, e in enumerate(entries)])
    order = [row for row in alike if row not in views] + _speaking_of(entries, question)
    order += sorted(worded, key=lambda row: row in views) + alike
    return list(dict.fromkeys([*order, *range(len(entries) - 1, -1, -1)]))


def _ends(kinds: Sequence[tuple[str, int | str]]) -> list[int]:
    """The last row of each kind, then the first ones; the newest first."""
    last = {kind: row for row, kind in enumerate(kinds)}
    first = {kind: row for row, kind in reversed(list(enumerate(kinds)))}
    return [*sorted(last.values(), reverse=True), *sorted(first.values(), reverse=True)]


def _speaking_of(entries: Sequence[LogEntry], question: str) -> list[int]:
    """The rows that share most words with a question, rare words counting more; of equal ones the newest first."""
    scores = [0.0] * len(entries)
    lines = [set(WORD.findall(e.caption.lower())) for e in entries]
    for word in set(WORD.findall(question.lower())):
        rows = [row for row, line in enumerate(lines) if any(_same(word, other) for other in line)]
        for row in rows:
            scores[row] += math.log(len(entries) / len(rows))
    found = [row for row in range(len(entries)) if scores[row] > 0]
    return sorted(found, key=lambda row: (-scores[row], -row))[:MOST_SPEAKING]


def _same(word: str, other: str) -> bool:
    """Whether two words are one, perhaps in another form: mug and mugs, cross and crosses."""
    return abs(len(word) - len(other)) <= 2 and (word.startswith(other) or other.startswith(word))


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
