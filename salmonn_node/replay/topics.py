"""Which of a bag's topics are cameras, microphones and poses: found by message type, or as told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

IMAGE_TYPES = ("sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image")
AUDIO_TYPES = (
    "salmonn_interfaces/msg/AudioChunk",
    "audio_common_msgs/msg/AudioStamped",
    "audio_common_msgs/msg/AudioDataStamped",
)
# In order of preference: a map pose beats odometry, a covariance beats none.
POSE_TYPES = (
    "geometry_msgs/msg/PoseWithCovarianceStamped",
    "geometry_msgs/msg/PoseStamped",
    "nav_msgs/msg/Odometry",
)
AUDIO_INFO_TYPE = "audio_common_msgs/msg/AudioInfo"
CAMERA_INFO_TYPE = "sensor_msgs/msg/CameraInfo"
TF_TYPE = "tf2_msgs/msg/TFMessage"
# Not observations, but read beside them.
_BESIDE = (AUDIO_INFO_TYPE, CAMERA_INFO_TYPE, TF_TYPE)


@dataclass(frozen=True)
class TopicChoice:
    """The topics that a replay reads.

    Attributes:
        cameras: source name -> topic.
        microphones: source name -> topic.
        pose: topic of the robot's pose, empty when there is none.
        ignored: topic -> reason, for the report; nothing is left out silently.
    """

    cameras: dict[str, str] = field(default_factory=dict)
    microphones: dict[str, str] = field(default_factory=dict)
    pose: str = ""
    ignored: dict[str, str] = field(default_factory=dict)


# Endings of a topic that say what is sent, not who sends it.
_IMAGE_ENDS = {"camera_info", "image", "compressed", "image_raw", "image_color", "image_rect", "image_rect_color"}
_AUDIO_ENDS = {"audio", "audio_stamped"}


def role_of(topic: str, msgtype: str) -> tuple[str, str]:
    """Role (camera, microphone, pose, or "") and sensor of a topic: `/front/image/compressed` is camera `front`."""
    parts = [part for part in topic.split("/") if part]
    if msgtype in IMAGE_TYPES:
        return "camera", "_".join(part for part in parts if part not in _IMAGE_ENDS) or "camera"
    if msgtype in AUDIO_TYPES:
        return "microphone", "_".join(part for part in parts if part not in _AUDIO_ENDS) or "microphone"
    return ("pose", "") if msgtype in POSE_TYPES else ("", "")


def camera_of_info(topic: str) -> str:
    """Name of the camera whose CameraInfo a topic is: `/front/camera_info` is that of camera `front`."""
    return role_of(topic, IMAGE_TYPES[0])[1]


def choose_topics(
    topics: Mapping[str, str],
    *,
    cameras: Iterable[str] = (),
    microphones: Iterable[str] = (),
    pose: str | None = None,
) -> TopicChoice:
    """Choose a replay's topics.

    Args:
        topics: topic -> message type of the bag.
        cameras: topics to use as cameras; empty finds them by type (the compressed one where a camera offers both).
        microphones: topics to use as microphones; empty finds them by type.
        pose: topic of the robot's pose; None finds one by type, "" uses none.

    Raises:
        ValueError: a topic that was asked for is not in the bag.
    """
    asked = [*cameras, *microphones, *([pose] if pose else [])]
    missing = sorted(set(asked) - set(topics))
    if missing:
        raise ValueError(f"no such topic in the bag: {', '.join(missing)}; it has: {', '.join(sorted(topics))}")
    ignored: dict[str, str] = {}
    chosen_cameras = _by_source(topics, cameras or _of_types(topics, IMAGE_TYPES), ignored)
    chosen_microphones = _by_source(topics, microphones or _of_types(topics, AUDIO_TYPES), ignored)
    poses = [pose] if pose else [] if pose == "" else list(_of_types(topics, POSE_TYPES))
    for extra in poses[1:]:
        ignored[extra] = f"another pose topic is used: {poses[0]}"
    used = {*chosen_cameras.values(), *chosen_microphones.values(), *poses[:1]}
    for topic, msgtype in topics.items():
        if topic not in used and topic not in ignored and msgtype not in _BESIDE:
            ignored[topic] = f"type {msgtype} is not a camera, microphone or pose"
    return TopicChoice(chosen_cameras, chosen_microphones, poses[0] if poses else "", ignored)


def _of_types(topics: Mapping[str, str], types: Iterable[str]) -> list[str]:
    """Topics of the given types, in the order of the types, then by name."""
    return [topic for msgtype in types for topic in sorted(topics) if topics[topic] == msgtype]


def _by_source(topics: Mapping[str, str], wanted: Iterable[str], ignored: dict[str, str]) -> dict[str, str]:
    """Name each topic's sensor; the first topic of a sensor is used, later ones are noted as ignored."""
    chosen: dict[str, str] = {}
    for topic in wanted:
        name = role_of(topic, topics[topic])[1] or topic
        if name in chosen:
            ignored[topic] = f"the same sensor is read from {chosen[name]}"
        else:
            chosen[name] = topic
    return chosen
