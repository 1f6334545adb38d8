"""What a running node would have said during a replay: its answers, their evidence and its memory status as messages.

Log times are the recorder's: an answer stands where the replay had taken in all that it reads; its header has the stamp
at which it was asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np

from salmonn_node.evaluation.answer_file import Answered
from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.evaluation.scores import judge
from salmonn_node.evaluation.wording import answer_text, expected_text
from salmonn_node.messages.annotations import image_annotations
from salmonn_node.messages.answers import answer_to_message
from salmonn_node.messages.bag_types import bag_typestore
from salmonn_node.messages.base import RosbagsTypes, header_message, time_message
from salmonn_node.messages.markers import ANSWERS_SHOWN, evidence_markers
from salmonn_node.messages.memory_status import memory_status_to_message
from salmonn_node.messages.questions import question_to_message
from salmonn_node.replay.storage_file import in_time_order
from salmonn_node.stream.observations import SECOND_NS

STATUS_NS = SECOND_NS
LOG_INFO, LOG_WARN = 20, 30  # of rcl_interfaces/Log
LATCHED = ("memory_status", "evidence_markers")

Written = tuple[int, str, str, bytes]  # log time (ns), topic, message type, bytes


@dataclass
class StatusTrack:
    """The memory's counters over the stream: when they have changed, at most once a second of it.

    Attributes:
        observer: whose counters they are.
        statuses: (log time, counters), in order.
    """

    observer: Any
    statuses: list[tuple[int, Any]] = field(default_factory=list)

    def __call__(self, log_ns: int, *, last: bool = False) -> None:
        """Note the counters at a log time; `last` notes them however short ago the ones before were."""
        if self.statuses and not last and log_ns < self.statuses[-1][0] + STATUS_NS:
            return
        status = self.observer.status()
        if not self.statuses or status.newest_ns != self.statuses[-1][1].newest_ns:
            self.statuses.append((log_ns, status))

    def memory_id(self, log_ns: int) -> str:
        """Id of the memory at a log time, empty before the first status."""
        before = [status for at, status in self.statuses if at <= log_ns]
        return str(before[-1].memory_id) if before else ""


@dataclass(frozen=True)
class Evaluation:
    """What a replay gave, for the file.

    Attributes:
        questions: by id.
        answers: (log time, answer with its pictures), in order of log time.
        statuses: (log time, counters of the observer).
        checkpoint_id: id of the network's weights.
        trained: False for untrained weights.
        start_ns: stamp from which seconds are counted in texts.
        reader: who answered, and where log and pictures went.
    """

    questions: dict[str, QuestionRecord]
    answers: Sequence[tuple[int, Answered]]
    statuses: Sequence[tuple[int, Any]]
    checkpoint_id: str
    trained: bool
    start_ns: int
    reader: str = ""


def said(evaluation: Evaluation, namespace: str) -> Iterator[Written]:
    """The messages of an evaluation in order of log time, on topics under `namespace`."""
    store = bag_typestore()
    types = RosbagsTypes(store)

    def packed(log_ns: int, topic: str, message: Any) -> Written:
        name = message.__msgtype__
        return log_ns, f"{namespace}/{topic}", name, bytes(store.serialize_cdr(message, name))

    encoders = {"vision": ("torch", "a replay"), "audio": ("torch", "a replay")}
    statuses = (
        packed(
            log_ns,
            "memory_status",
            memory_status_to_message(
                types,
                status,
                encoders=encoders,
                checkpoint_id=evaluation.checkpoint_id,
                trained=evaluation.trained,
                reader=evaluation.reader,
                stamp_ns=log_ns,
            ),
        )
        for log_ns, status in evaluation.statuses
    )

    def answers() -> Iterator[Written]:
        shown: deque[tuple[str, Any]] = deque(maxlen=ANSWERS_SHOWN)
        for log_ns, answered in evaluation.answers:
            record = evaluation.questions[answered.id]
            # The latency is the only value of the clock of this machine.
            message = answer_to_message(types, replace(answered.answer, latency_s=0.0))
            header = header_message(types, record.ask_ns, "")
            question = question_to_message(types, replace(record.question(), want_thumbnails=True))
            dialogue = types.new(
                "salmonn_interfaces/msg/AnsweredQuestion", header=header, question=question, answer=message
            )
            yield packed(log_ns, "answers", dialogue)
            yield packed(log_ns, "verdicts", _verdict(types, record, answered, evaluation.start_ns))
            if any(e.observer_pose_valid for e in message.evidence):
                shown.appendleft((record.text, message))
                yield packed(log_ns, "evidence_markers", evidence_markers(types, list(shown)))
            yield from (packed(log_ns, topic, message) for topic, message in _picture(types, record, answered))

    sources = [(0, lambda: iter(statuses)), (0, answers)]
    return in_time_order(sources)


def _verdict(types: RosbagsTypes, record: QuestionRecord, answered: Answered, start_ns: int) -> Any:
    """rcl_interfaces/Log: whether an answer is right, as viewers list it."""
    right = judge(record, answered.answer).correct
    said, expected = answer_text(answered.answer, record, start_ns), expected_text(record, start_ns)
    return types.new(
        "rcl_interfaces/msg/Log",
        stamp=time_message(types, record.ask_ns),
        level=LOG_INFO if right else LOG_WARN,
        name="salmonn replay",
        msg=f"{'right' if right else 'wrong'}: {record.text} — {said}" + ("" if right else f" (expected: {expected})"),
        file=record.id,
        function="",
        line=0,
    )


def _picture(types: RosbagsTypes, record: QuestionRecord, answered: Answered) -> Iterator[tuple[str, Any]]:
    """The strongest picture that an answer rests on, and what is drawn on it; nothing without a picture.

    Both have the stamp of the evidence, by which a viewer puts them together.
    """
    piece = next((piece for piece in answered.answer.evidence if piece.thumbnail), None)
    image = None if piece is None else cv2.imdecode(np.frombuffer(piece.thumbnail, np.uint8), cv2.IMREAD_COLOR)
    if piece is None or image is None:
        return
    picture = types.new(
        "sensor_msgs/msg/CompressedImage",
        header=header_message(types, piece.interval.start_ns, piece.frame_id),
        format="jpeg",
        data=types.data(piece.thumbnail),
    )
    yield "evidence_image/compressed", picture
    size = (image.shape[1], image.shape[0])
    yield "evidence_annotations", image_annotations(types, piece, size, f"{record.text} {piece.score:.2f}")
