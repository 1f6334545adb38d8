"""What names and types of topics say: which may be a camera, a microphone or a pose, and whose it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

IMAGE_TYPES = ("sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image")
VIDEO_TYPES = ("foxglove_msgs/msg/CompressedVideo", "ffmpeg_image_transport_msgs/msg/FFMPEGPacket")
# In order of preference, where a camera offers several: what costs least to decode comes first.
CAMERA_TYPES = IMAGE_TYPES + VIDEO_TYPES
AUDIO_TYPES = (
    "salmonn_interfaces/msg/AudioChunk",
    "audio_common_msgs/msg/AudioStamped",
    "audio_common_msgs/msg/AudioDataStamped",
)
ODOMETRY_TYPE = "nav_msgs/msg/Odometry"
BARE_POSE_TYPE = "geometry_msgs/msg/PoseStamped"
POSE_TYPES = ("geometry_msgs/msg/PoseWithCovarianceStamped", BARE_POSE_TYPE, ODOMETRY_TYPE)
AUDIO_INFO_TYPE = "audio_common_msgs/msg/AudioInfo"
CAMERA_INFO_TYPE = "sensor_msgs/msg/CameraInfo"
TF_TYPE = "tf2_msgs/msg/TFMessage"
TF_TYPES = (TF_TYPE, "tf/msg/tfMessage")  # the second is that of the first years of ROS 1

# Types that a user may take for a camera or a microphone, and what to record instead.
UNREAD = {
    "audio_common_msgs/msg/AudioData": "its sound has no stamps; record `audio_stamped`, which audio_capture sends too",
    "theora_image_transport/msg/Packet": "Theora video is not decoded; record `compressed` or an H.264 topic",
}

# Last parts of the topic on which a node, or a replay with --mcap, shows the pictures of its evidence.
EVIDENCE_IMAGE = "evidence_image/compressed"

# Last parts of a topic's name that say how pictures travel, by the names of image_transport's plugins.
_TRANSPORTS = {"compressed", "compressedDepth", "theora", "ffmpeg", "foxglove", "zstd", "h264", "h265", "hevc", "video"}
# Parts that say what is sent, not who sends it.
_IMAGE = re.compile(r"camera_info|image(_(raw|rect|rectified|color|colour|mono|gray|grey|rgb|bgr))*")
_AUDIO = re.compile(r"audio|audio_stamped|audio_info")
# Words in the name of a pose that is not where the robot is, but where it is to go, or was told to be.
_ELSEWHERE = {
    "goal", "goals", "initialpose", "initial", "init", "plan", "plans", "planned", "planner", "path", "waypoint",
    "waypoints", "target", "targets", "setpoint", "desired", "reference", "ref", "cmd", "command", "commanded",
    "carrot", "lookahead", "clicked", "subgoal", "destination",
}  # fmt: skip


def role_of(topic: str, msgtype: str) -> tuple[str, str]:
    """Role (camera, microphone, pose, or "") and sensor of a topic: `/front/image/compressed` is camera `front`."""
    if msgtype in CAMERA_TYPES and not topic.endswith(f"/{EVIDENCE_IMAGE}"):
        return "camera", camera_name(topic)
    if msgtype in AUDIO_TYPES:
        return "microphone", _name(topic.split("/"), _AUDIO) or "microphone"
    return ("pose", "") if msgtype in POSE_TYPES else ("", "")


def camera_name(topic: str) -> str:
    """Name of the camera that sends on a topic, or whose CameraInfo it is."""
    return _name(image_base(topic).split("/"), _IMAGE) or "camera"


def image_base(topic: str) -> str:
    """A camera topic without its transport: `/front/image_raw` for `/front/image_raw/compressed`."""
    base, _, last = topic.rpartition("/")
    return base if base and last in _TRANSPORTS else topic


def elsewhere(topic: str, msgtype: str) -> str:
    """The word in a pose topic's name that says that it is not the robot's own place; empty without one.

    Odometry is no goal, whatever the name of the node that sends it: only the last part of its name counts.
    """
    name = topic.rpartition("/")[2] if msgtype == ODOMETRY_TYPE else topic
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Za-z][a-z]*", name)
    return next((word.lower() for word in words if word.lower() in _ELSEWHERE), "")


def camera_infos(cameras: Mapping[str, str], infos: Iterable[str], frames: Mapping[str, str]) -> dict[str, str]:
    """Which CameraInfo topic tells of which camera.

    The one beside the images, as image_transport has it; else one of the same frame; else one of the same name.

    Args:
        cameras: source name -> topic.
        infos: topics of CameraInfo.
        frames: topic -> frame of its messages, where it is known.

    Returns:
        Source name -> topic of its CameraInfo, for those that have one.
    """
    infos, found = sorted(infos), {}
    for source, topic in cameras.items():
        base = image_base(topic)
        beside = [f"{base.rpartition('/')[0]}/camera_info", f"{base}/camera_info"]
        framed = [info for info in infos if frames.get(info) and frames.get(info) == frames.get(topic)]
        named = [info for info in infos if camera_name(info) == source]
        chosen = [info for info in beside if info in infos] or framed or named
        if chosen:
            found[source] = chosen[0]
    return found


def _name(parts: Iterable[str], ends: re.Pattern[str]) -> str:
    return "_".join(part for part in parts if part and not ends.fullmatch(part))
