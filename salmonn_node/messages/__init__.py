"""Message-like objects (rclpy or rosbags: the same field names) to the stream's types and back. No rclpy, no torch."""

from salmonn_node.messages.answers import (
    answer_from_message,
    answer_to_message,
    evidence_from_message,
    evidence_to_message,
)
from salmonn_node.messages.audio import AudioFormat, audio_chunk, audio_format
from salmonn_node.messages.base import (
    MessageError,
    MessageTypes,
    RosbagsTypes,
    RosTypes,
    message_stamp_ns,
    stamp_ns,
)
from salmonn_node.messages.geometry import camera_model_from_message, shows_rectified, transforms_from_message
from salmonn_node.messages.images import check_image, image_frame, image_to_rgb, measured_encoding
from salmonn_node.messages.poses import pose_from_message, pose_to_message
from salmonn_node.messages.questions import question_from_message, question_to_message
from salmonn_node.messages.video import CameraPictures

__all__ = [
    "AudioFormat",
    "CameraPictures",
    "MessageError",
    "MessageTypes",
    "RosTypes",
    "RosbagsTypes",
    "answer_from_message",
    "answer_to_message",
    "audio_chunk",
    "audio_format",
    "camera_model_from_message",
    "check_image",
    "evidence_from_message",
    "evidence_to_message",
    "image_frame",
    "image_to_rgb",
    "measured_encoding",
    "message_stamp_ns",
    "pose_from_message",
    "pose_to_message",
    "question_from_message",
    "question_to_message",
    "shows_rectified",
    "stamp_ns",
    "transforms_from_message",
]
