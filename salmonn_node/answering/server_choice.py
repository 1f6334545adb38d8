"""Pictures chosen without the question, to compare with: evenly over the stream, or the last ones."""

from __future__ import annotations

from salmonn_node.answering.source import MemorySource
from salmonn_node.memory.album import Picture
from salmonn_node.memory.log_entries import VIEW, LogEntry, view_key
from salmonn_node.stream.answers import Question

LOG, UNIFORM, LAST = "log", "uniform", "last"
CHOICES = (LOG, UNIFORM, LAST)


def plain_choice(observer: MemorySource, question: Question, most: int, how: str) -> list[LogEntry]:
    """At most `most` pictures of the question's window and sources, `uniform` or `last`, in order of time."""
    names = observer.memory.sources
    moments = observer.evidence.between(
        question.after_ns, question.before_ns, modality="vision", sources=question.sources
    )
    moments = [m for m in moments if m.thumbnail and m.source in names]
    if how == LAST:
        moments = moments[-most:]
    elif len(moments) > most:
        moments = [moments[int((i + 0.5) * len(moments) / most)] for i in range(most)]
    out = []
    for moment in moments:
        picture = Picture(names.index(moment.source), moment.interval.start_ns, moment.thumbnail)
        stamp = picture.stamp_ns
        out.append(LogEntry(view_key(picture), VIEW, picture.source, stamp, stamp, 1, -1, -1, "", (picture,)))
    return out
