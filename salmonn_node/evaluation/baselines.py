"""Baselines without a memory: always unknown, the majority answer of each kind, and a guess from the question."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.stream.answers import Answer, AnswerType, Evidence, Outcome, PoseKind
from salmonn_node.stream.observations import Interval, Pose


def always_unknown(record: QuestionRecord) -> Answer:
    """Always abstain. This is right exactly for the unanswerable questions."""
    return Answer(outcome=Outcome.NOT_OBSERVED, answer_type=AnswerType[record.answer_type])


def expected_answer(record: QuestionRecord) -> Answer:
    """Return the expected answer of a record, with its evidence. It must score 1.0, or the scorer is wrong."""
    expected = record.expected
    if not record.answerable:
        return always_unknown(record)
    pose = None
    if expected.position_m is not None:
        x, y, z = expected.position_m
        stamp_ns = record.evidence[0].end_ns if record.evidence else record.ask_ns
        pose = Pose(
            stamp_ns, expected.frame_id, np.array([x, y, z]), np.array([0.0, 0.0, 0.0, 1.0]), map_id=expected.map_id
        )
    event = None
    if expected.event_start_ns is not None:
        end_ns = expected.event_end_ns if expected.event_end_ns is not None else expected.event_start_ns
        event = Interval(expected.event_start_ns, end_ns)
    return Answer(
        answer_type=AnswerType[record.answer_type],
        text=expected.text,
        binary=bool(expected.binary),
        choice_index=-1 if expected.choice_index is None else expected.choice_index,
        pose=pose,
        pose_kind=PoseKind[expected.pose_kind],
        event=event,
        duration_s=expected.duration_s or 0.0,
        count=expected.count or 0,
        confidence=1.0,
        evidence=tuple(Evidence(e.interval, e.modality, "", "", 1.0) for e in record.evidence),
    )


def _key(record: QuestionRecord) -> tuple[object, ...]:
    expected = record.expected
    return (record.answerable, expected.text, expected.binary, expected.choice_index, expected.count)


class MajorityAnswerer:
    """Give the most common answer of each kind among training questions, whatever the question says."""

    def __init__(self, training: Iterable[QuestionRecord]) -> None:
        groups: dict[str, list[QuestionRecord]] = defaultdict(list)
        for record in training:
            groups[self.group(record)].append(record)
        self._answers = {name: self._commonest(records) for name, records in groups.items()}

    def group(self, record: QuestionRecord) -> str:
        """Return the group of a question. Questions of a group get the same answer."""
        return record.kind

    @staticmethod
    def _commonest(records: Sequence[QuestionRecord]) -> Answer:
        counts = Counter(_key(r) for r in records)
        best = max(counts, key=lambda k: (counts[k], str(k)))
        return expected_answer(next(r for r in records if _key(r) == best))

    def __call__(self, record: QuestionRecord) -> Answer:
        """Answer one question."""
        return self._answers.get(self.group(record), always_unknown(record))


class BlindAnswerer(MajorityAnswerer):
    """Give the most common answer to the same words: what one can know without seeing or hearing anything."""

    def group(self, record: QuestionRecord) -> str:
        """Return the words of the question. Unknown words get the majority answer of the kind."""
        return record.kind + ":" + " ".join(re.findall(r"[a-z0-9]+", record.text.lower()))

    def __init__(self, training: Iterable[QuestionRecord]) -> None:
        records = list(training)
        super().__init__(records)
        self._fallback = MajorityAnswerer(records)

    def __call__(self, record: QuestionRecord) -> Answer:
        """Answer one question."""
        return self._answers.get(self.group(record)) or self._fallback(record)
