"""Topics for people and viewers: each question with its answer, and the evidence of the last answers on the map."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from visualization_msgs.msg import Marker, MarkerArray

from salmonn_interfaces.msg import Answer, AnsweredQuestion, Evidence, Question
from salmonn_node.client.qos import LATCHED
from salmonn_node.messages.base import field_names, stamp_ns
from salmonn_node.stream.observations import Interval

ANSWERS_SHOWN = 5
ARROW_M = (0.5, 0.08, 0.08)  # length, width and height of an arrow
TEXT_HEIGHT_M = 0.2
CAPTION_BYTES = 80
VISION_RGB, AUDIO_RGB = (0.1, 0.6, 1.0), (1.0, 0.6, 0.1)


class AnswerTopics:
    """Publishes `~/answers` (AnsweredQuestion) and `~/evidence_markers` (MarkerArray, latched).

    Malformed questions are not published, because they may hold a megabyte of text.

    Args:
        node: owner of the publishers.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._shown: deque[tuple[str, Answer]] = deque(maxlen=ANSWERS_SHOWN)
        self._memory_id = ""
        self._gone: list[Interval] = []  # forgotten intervals of that memory
        self._dialogue = node.create_publisher(AnsweredQuestion, "~/answers", QoSProfile(depth=10))
        self._markers = node.create_publisher(MarkerArray, "~/evidence_markers", LATCHED)

    def publish(self, question: Question, answer: Answer) -> None:
        """Publish an answer. Any thread may call this."""
        if answer.error_code == Answer.INVALID_REQUEST:
            return
        dialogue = AnsweredQuestion(question=question, answer=answer)
        dialogue.header.stamp = self._node.get_clock().now().to_msg()
        self._dialogue.publish(dialogue)
        with self._lock:
            # Do not draw evidence that was forgotten while the answer was being made.
            if (left := self._remaining(answer)) is not None:
                self._shown.appendleft((question.text, left))
                self._markers.publish(evidence_markers(list(self._shown)))

    def keep(self, memory_id: str, gone: Interval | None = None) -> None:
        """Remove markers of other memories and of a forgotten interval. Any thread may call this.

        Args:
            memory_id: the running memory.
            gone: an interval of it that was forgotten.
        """
        with self._lock:
            if memory_id != self._memory_id:
                self._memory_id, self._gone = memory_id, []
            if gone is not None:
                self._gone.append(gone)
            left = [(text, answer) for text, shown in self._shown if (answer := self._remaining(shown)) is not None]
            if left == list(self._shown):
                return
            self._shown = deque(left, maxlen=ANSWERS_SHOWN)
            self._markers.publish(evidence_markers(left))

    def _remaining(self, answer: Answer) -> Answer | None:
        """The answer with the evidence that still exists; None when none of that can be drawn."""
        if self._memory_id and answer.memory_id != self._memory_id:
            return None
        evidence = [e for e in answer.evidence if not any(_touches(e, gone) for gone in self._gone)]
        if not any(e.observer_pose_valid for e in evidence):
            return None
        return answer if len(evidence) == len(answer.evidence) else Answer(**_fields(answer) | {"evidence": evidence})


def _touches(evidence: Evidence, gone: Interval) -> bool:
    start_ns = stamp_ns(evidence.header.stamp)
    return start_ns <= gone.end_ns and start_ns + stamp_ns(evidence.span) >= gone.start_ns


def _fields(message: Any) -> dict[str, Any]:
    return {name: getattr(message, name) for name in field_names(message)}


def evidence_markers(answers: list[tuple[str, Any]]) -> MarkerArray:
    """Make arrows where the robot was when it observed the evidence, with the question and the answer as text.

    Poses from another memory or map than the newest answer's are left out, because they would be drawn at the wrong
    place. The stamps are zero, which tells a viewer to use the newest transform. The transforms from the time of the
    observation are no longer available.

    Args:
        answers: (text of the question, Answer message), newest first; older ones fade.
    """
    markers = [Marker(action=Marker.DELETEALL)]
    newest = answers[0][1] if answers else None
    map_id = next((e.map_id for e in newest.evidence if e.observer_pose_valid), "") if newest else ""
    for age, (text, answer) in enumerate(answers):
        if newest is None or answer.memory_id != newest.memory_id:
            continue
        for rank, evidence in enumerate(answer.evidence):
            if evidence.observer_pose_valid and evidence.map_id == map_id:
                opacity = 1.0 - age / (ANSWERS_SHOWN + 1)
                markers += _markers(f"answer_{age}", rank, evidence, opacity, f"{text}\n{answer.text}")
    return MarkerArray(markers=markers)


def _markers(namespace: str, rank: int, evidence: Evidence, opacity: float, caption: str) -> list[Marker]:
    arrow = Marker(ns=namespace, id=2 * rank, type=Marker.ARROW, action=Marker.ADD)
    arrow.header.frame_id = evidence.observer_pose.header.frame_id
    arrow.pose = evidence.observer_pose.pose.pose
    arrow.scale.x, arrow.scale.y, arrow.scale.z = ARROW_M
    colour = AUDIO_RGB if evidence.modality == Evidence.AUDIO else VISION_RGB
    arrow.color.r, arrow.color.g, arrow.color.b, arrow.color.a = (*colour, opacity)
    if rank:
        return [arrow]
    label = Marker(ns=namespace, id=2 * rank + 1, type=Marker.TEXT_VIEW_FACING, action=Marker.ADD, header=arrow.header)
    position = evidence.observer_pose.pose.pose.position
    label.pose.position.x, label.pose.position.y, label.pose.position.z = position.x, position.y, position.z + 0.4
    label.pose.orientation.w = 1.0
    label.scale.z = TEXT_HEIGHT_M
    label.color.r, label.color.g, label.color.b, label.color.a = 1.0, 1.0, 1.0, opacity
    label.text = "\n".join(line[:CAPTION_BYTES] for line in caption.split("\n")[:2])
    return [arrow, label]
