"""Topics for people and viewers: each question with its answer, and the evidence of the last answers on the map."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from visualization_msgs.msg import MarkerArray

from salmonn_interfaces.msg import Answer, AnsweredQuestion, Evidence, Question
from salmonn_node.client.qos import LATCHED
from salmonn_node.messages.base import RosTypes, field_names, stamp_ns
from salmonn_node.messages.markers import ANSWERS_SHOWN, evidence_markers
from salmonn_node.stream.observations import Interval


class AnswerTopics:
    """Publishes `~/answers` (AnsweredQuestion) and `~/evidence_markers` (MarkerArray, latched).

    Malformed questions are not published, because they may hold a megabyte of text.

    Args:
        node: owner of the publishers.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._types = RosTypes()
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
                self._markers.publish(evidence_markers(self._types, list(self._shown)))

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
            self._markers.publish(evidence_markers(self._types, left))

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
