"""Topics for people and viewers: each question with its answer, and the evidence of the last answers on the map."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage
from visualization_msgs.msg import MarkerArray

from salmonn_interfaces.msg import Answer, AnsweredQuestion, Evidence, Question
from salmonn_node.client.qos import LATCHED
from salmonn_node.evaluation.evidence_picture import picture_of
from salmonn_node.messages.answers import evidence_from_message
from salmonn_node.messages.base import RosTypes, field_names, stamp_ns
from salmonn_node.messages.detections import detections_to_message
from salmonn_node.messages.markers import ANSWERS_SHOWN, evidence_markers
from salmonn_node.stream.observations import Interval


class AnswerTopics:
    """Publishes `~/answers`, `~/evidence_markers` (latched), `~/evidence_image/compressed`, `~/evidence_detections`.

    Malformed questions are not published, because they may hold a megabyte of text. The picture is not latched: a late
    listener must not see evidence that was forgotten.

    Args:
        node: owner of the publishers; its parameter `publish_detections` says whether there are detections.

    Attributes:
        problem: why there are no detections although they were asked for; empty otherwise.
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
        self._picture = node.create_publisher(CompressedImage, "~/evidence_image/compressed", QoSProfile(depth=10))
        self._detections: Publisher | None = None
        self.problem = ""
        if node.get_parameter("publish_detections").value:
            try:
                from vision_msgs.msg import Detection2DArray
            except ImportError as error:
                self.problem = (
                    f"publish_detections: {error}; install it (apt: ros-$ROS_DISTRO-vision-msgs), or set false"
                )
            else:
                topic = "~/evidence_detections"
                self._detections = node.create_publisher(Detection2DArray, topic, QoSProfile(depth=10))

    def publish(self, question: Question, answer: Answer) -> None:
        """Publish an answer. Any thread may call this."""
        if answer.error_code == Answer.INVALID_REQUEST:
            return
        dialogue = AnsweredQuestion(question=question, answer=answer)
        dialogue.header.stamp = self._node.get_clock().now().to_msg()
        self._dialogue.publish(dialogue)
        with self._lock:
            # Do not show evidence that was forgotten while the answer was being made.
            left = self._remaining(answer)
            if any(e.observer_pose_valid for e in left.evidence):
                self._shown.appendleft((question.text, left))
                self._markers.publish(evidence_markers(self._types, list(self._shown)))
        self._show_pictures(question, left)

    def _show_pictures(self, question: Question, answer: Answer) -> None:
        """Publish the strongest picture of an answer, with the region drawn, and the regions as detections."""
        piece = next((e for e in answer.evidence if len(e.thumbnail.data)), None)
        if piece is not None:
            data = self._types.data(picture_of(evidence_from_message(piece)))
            self._picture.publish(CompressedImage(header=piece.thumbnail.header, format="jpeg", data=data))
        if self._detections is not None and answer.evidence:
            self._detections.publish(detections_to_message(self._types, question.text, answer))

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
            kept = [(text, self._remaining(answer)) for text, answer in self._shown]
            left = [(text, answer) for text, answer in kept if any(e.observer_pose_valid for e in answer.evidence)]
            if left == list(self._shown):
                return
            self._shown = deque(left, maxlen=ANSWERS_SHOWN)
            self._markers.publish(evidence_markers(self._types, left))

    def _remaining(self, answer: Answer) -> Answer:
        """The answer with the evidence that still exists."""
        gone = bool(self._memory_id) and answer.memory_id != self._memory_id
        evidence = [e for e in answer.evidence if not (gone or any(_touches(e, lost) for lost in self._gone))]
        return answer if len(evidence) == len(answer.evidence) else Answer(**_fields(answer) | {"evidence": evidence})


def _touches(evidence: Evidence, gone: Interval) -> bool:
    start_ns = stamp_ns(evidence.header.stamp)
    return start_ns <= gone.end_ns and start_ns + stamp_ns(evidence.span) >= gone.start_ns


def _fields(message: Any) -> dict[str, Any]:
    return {name: getattr(message, name) for name in field_names(message)}
