"""The client for planners: `from salmonn_node.client import Memory, AnswerType, ErrorCode, Outcome`.

It needs rclpy and salmonn_interfaces and never loads torch, so a planner can run on another machine than the node.
"""

from salmonn_node.client.memory_client import Memory, Watched
from salmonn_node.client.qos import ACTION_QOS, LATCHED, MANY_AT_ONCE
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Evidence, Outcome, PoseKind

__all__ = [
    "ACTION_QOS",
    "LATCHED",
    "MANY_AT_ONCE",
    "Answer",
    "AnswerType",
    "ErrorCode",
    "Evidence",
    "Memory",
    "Outcome",
    "PoseKind",
    "Watched",
]
