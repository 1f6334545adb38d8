"""The question queue of an active node, and the node's defaults for fields that a question leaves open."""

from __future__ import annotations

from dataclasses import replace

from rclpy.node import Node

from salmonn_node.answering.question_queue import QuestionQueue
from salmonn_node.ros import parameters as node_parameters
from salmonn_node.ros.parameters import NodeParameters
from salmonn_node.runtime.build import Backend
from salmonn_node.stream.answers import Question


class OpenQueue:
    """The question queue with the node's defaults. It exists while the node is active.

    Args:
        node: its parameters give the defaults; some may change while the node runs.
        settings: the node's parameters as read in configure.
        backend: answers the questions.

    Attributes:
        queue: the question queue.
    """

    def __init__(self, node: Node, settings: NodeParameters, backend: Backend) -> None:
        self._node = node
        self._settings = settings
        self.queue = QuestionQueue(
            backend.answerer, answer_times=backend.answer_times, max_questions=settings.max_questions
        )

    def complete(self, question: Question) -> Question:
        """Fill in the node's defaults. Raises MessageError for an unknown source."""
        node_parameters.check_sources(self._settings, question.sources)
        return replace(question, max_evidence=question.max_evidence or int(self._value("max_evidence")))

    def timeout_s(self, question: Question) -> float:
        """Seconds from receipt to the deadline."""
        return float(min(question.timeout_s or self._value("default_timeout_s"), self._value("max_timeout_s")))

    def _value(self, name: str) -> float:
        return self._node.get_parameter(name).value
