"""Evidence of a server's answer: the entries that it names, with stamps, poses, pictures and the box that it gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from salmonn_node.answering.evidence import AUDIO, VISION
from salmonn_node.answering.server_prompts import BOX_SCALE
from salmonn_node.answering.source import MemorySource
from salmonn_node.memory.log_entries import SOUND, LogEntry
from salmonn_node.stream.answers import Evidence, Question, Region
from salmonn_node.stream.moment import Moment
from salmonn_node.stream.observations import SECOND_NS, Interval, Pose


class ServerEvidence:
    """Looks up what is known of entries.

    Args:
        observer: gives sources, picture sizes and the evidence index.
        object_pose: gives the position of the thing in a piece of evidence, or None.
    """

    def __init__(self, observer: MemorySource, object_pose: Callable[[Evidence], Pose | None]) -> None:
        self._observer, self.object_pose = observer, object_pose

    def _moment(self, entry: LogEntry, stamp_ns: int) -> Moment | None:
        modality = AUDIO if entry.what == SOUND else VISION
        source = self._observer.memory.sources[entry.source]
        found = self._observer.evidence.between(stamp_ns, stamp_ns, modality=modality, sources=[source], limit=1)
        return found[0] if found else None

    def pose(self, entry: LogEntry) -> Pose | None:
        """The robot's pose at an entry's beginning, None when unknown."""
        moment = self._moment(entry, entry.first_ns)
        number = entry.pose_id if moment is None or moment.pose_id < 0 else moment.pose_id
        return self._observer.evidence.pose(number)

    def place(self, entry: LogEntry) -> str:
        """The robot's place at an entry's beginning in words, "" when unknown."""
        return _words(self.pose(entry))

    def here(self, stamp_ns: int) -> str:
        """The robot's place at the end of the stream in words, "" when unknown."""
        newest = self._observer.evidence.between(max(1, stamp_ns - 5 * SECOND_NS), stamp_ns)
        poses = [p for m in newest if (p := self._observer.evidence.pose(m.pose_id)) is not None]
        return _words(poses[-1]) if poses else ""

    def frame_ns(self, entry: LogEntry) -> int:
        """How long the last frame of a sight lasts: the time between its first two frames, if the index knows it."""
        moment = self._moment(entry, entry.first_ns)
        return 0 if moment is None else moment.interval.end_ns - moment.interval.start_ns

    def of(self, entries: Sequence[LogEntry], question: Question, box: Sequence[float] | None) -> tuple[Evidence, ...]:
        """Evidence for entries, of equal score; a sound brings the picture at its time as a piece of its own.

        Args:
            entries: in the order in which they were named.
            question: its window cuts intervals, and it says whether pictures are wanted.
            box: [left, top, right, bottom] in thousandths of the first entry's picture, or None.
        """
        pieces: list[Evidence] = []
        for entry in entries:
            stamp = entry.picture.stamp_ns if entry.picture is not None else entry.first_ns
            jpeg = entry.picture.jpeg if entry.picture is not None and question.want_thumbnails else b""
            name = self._observer.memory.sources[entry.source]
            span = _inside(entry, question)
            if entry.what == SOUND:
                moment = self._moment(entry, entry.first_ns)
                frame = moment.frame_id if moment is not None else ""
                pieces.append(Evidence(span, AUDIO, name, frame, 0.0, self.pose(entry), jpeg))
                if entry.picture is None:
                    continue
                name, span = self._observer.memory.sources[entry.picture.source], Interval(stamp, stamp)
            found = self._observer.evidence.between(stamp, stamp, modality=VISION, sources=[name], limit=1)
            moment = found[0] if found else None
            pose = self._observer.evidence.pose_at(stamp) or self.pose(entry)
            first = entry is entries[0]
            region = self._region(name, box) if box is not None and first else None
            frame = moment.frame_id if moment is not None else ""
            pieces.append(Evidence(span, VISION, name, frame, 0.0, pose, jpeg, region))
        share = 1.0 / max(1, len(pieces))
        return tuple(replace(piece, score=share) for piece in pieces)

    def _region(self, source: str, box: Sequence[float]) -> Region | None:
        size = self._observer.picture_size(source)
        if size is None:
            return None
        left, top, right, bottom = (value / BOX_SCALE for value in box)
        x, y = int(left * size[0]), int(top * size[1])
        return Region(x, y, max(1, round(right * size[0]) - x), max(1, round(bottom * size[1]) - y), *size)


def _inside(entry: LogEntry, question: Question) -> Interval:
    start = max(entry.first_ns, question.after_ns)
    return Interval(start, max(start, min(entry.last_ns, question.before_ns or entry.last_ns)))


def _words(pose: Pose | None) -> str:
    return "" if pose is None else f", robot at x={pose.position[0]:.1f} y={pose.position[1]:.1f}"
