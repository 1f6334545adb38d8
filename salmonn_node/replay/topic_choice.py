"""Which topics of a recording are read, and why: names and types say what may be, messages what is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from salmonn_node.messages import measured_encoding
from salmonn_node.messages.base import frame_of
from salmonn_node.replay.bag import Bag
from salmonn_node.replay.pose_choice import BODIES, choose_pose
from salmonn_node.replay.pose_tracks import pose_tracks, tf_track
from salmonn_node.replay.topics import (
    AUDIO_INFO_TYPE,
    AUDIO_TYPES,
    CAMERA_INFO_TYPE,
    CAMERA_TYPES,
    EVIDENCE_IMAGE,
    POSE_TYPES,
    TF_TYPES,
    UNREAD,
    camera_infos,
    role_of,
)

# No observations, but read with them.
BESIDE = {AUDIO_INFO_TYPE: "audio_info", CAMERA_INFO_TYPE: "camera_info"} | dict.fromkeys(TF_TYPES, "tf")
FROM_TF = "tf"  # in the place of a pose topic


@dataclass(frozen=True)
class TopicChoice:
    """The topics that a replay reads.

    Attributes:
        cameras: source name -> topic.
        microphones: source name -> topic.
        pose: topic of the robot's pose, empty when there is none; "tf" when tf tells it.
        pose_frames: with "tf", the frame of the poses and the frame whose poses they are.
        infos: camera -> topic of its CameraInfo.
        beside: topic -> what is heard of it beside the observations: "tf", "audio_info".
        ignored: topic -> why it is not read; nothing is left out silently.
        reasons: sentences on what was chosen among several, and why.
    """

    cameras: dict[str, str] = field(default_factory=dict)
    microphones: dict[str, str] = field(default_factory=dict)
    pose: str = ""
    pose_frames: tuple[str, str] = ("", "")
    infos: dict[str, str] = field(default_factory=dict)
    beside: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    def used_as(self, topic: str) -> str:
        """What a topic is read as, in words; empty when it is not."""
        for role, chosen in (("camera", self.cameras), ("microphone", self.microphones), ("camera_info", self.infos)):
            for source, name in chosen.items():
                if name == topic:
                    return role if source == role else f"{role} {source}"
        return "pose" if topic == self.pose else self.beside.get(topic, "")


def choose_topics(
    bag: Bag,
    *,
    cameras: Iterable[str] = (),
    microphones: Iterable[str] = (),
    pose: str | None = None,
) -> TopicChoice:
    """Choose what is read of a recording.

    Args:
        bag: the recording; first messages and stretches of its poses are read.
        cameras: topics to use as cameras; empty finds them (where a camera offers several, the cheapest to decode).
        microphones: topics to use as microphones; empty finds them by type.
        pose: topic of the robot's pose; None finds it, "" uses none, "tf" takes it from tf.

    Raises:
        ValueError: a topic that was asked for is not in the recording, or tf does not tell where the robot is.
    """
    types = {topic.name: topic.msgtype for topic in bag.topics}
    asked = [*cameras, *microphones, *([pose] if pose and pose != FROM_TF else [])]
    missing = sorted(set(asked) - set(types))
    if missing:
        raise ValueError(f"no such topic in the bag: {', '.join(missing)}; it has: {', '.join(sorted(types))}")
    ignored = {
        topic.name: f"its messages are {topic.encoding}, not those of ROS"
        for topic in bag.topics
        if topic.encoding not in ("cdr", "ros1")
    }
    shown = [topic for topic in types if topic.endswith(f"/{EVIDENCE_IMAGE}") and topic not in asked]
    ignored |= dict.fromkeys(shown, "it shows the evidence of answers, not what a camera sees")
    empty = {topic.name: "it has no messages" for topic in bag.topics if topic.count == 0 and topic.promised == 0}
    ignored |= {topic: reason for topic, reason in empty.items() if topic not in asked and topic not in ignored}
    infos = [topic for topic, kind in types.items() if kind == CAMERA_INFO_TYPE and topic not in empty]
    offered = list(cameras) or [t for t in _of_types(types, CAMERA_TYPES) if t not in ignored]
    first = {topic: bag.first(topic) for topic in [*offered, *infos]}
    frames = {topic: frame_of(message) for topic, message in first.items() if message is not None}
    for topic in offered:
        measured = "" if cameras or first[topic] is None else _measured(first[topic])
        if measured:
            ignored[topic] = f"its pictures hold measurements, not colours ({measured})"
    offered = [topic for topic in offered if topic not in ignored]
    found_cameras = _by_source(types, offered, frames, ignored)
    heard = list(microphones) or [t for t in _of_types(types, AUDIO_TYPES) if t not in ignored]
    found_microphones = _by_source(types, heard, {}, ignored)
    reasons: list[str] = []
    if pose is None:
        pose = _found_pose(bag, [t for t in _of_types(types, POSE_TYPES) if t not in ignored], frames, ignored, reasons)
        pose = pose or None
    track = tf_track(bag) if pose in (None, FROM_TF) else None
    if track is not None:
        reasons.append(f"tf tells the robot's pose: {track.why}")
    elif pose == FROM_TF:
        raise ValueError(f"tf does not tell where the robot is: nothing moves above a frame named {', '.join(BODIES)}")
    pose = FROM_TF if track is not None else pose or ""
    pose_frames = (track.fixed_frame, track.base_frame) if track is not None else ("", "")
    chosen_infos = camera_infos(found_cameras, infos, frames)
    beside = {
        topic: BESIDE[kind]
        for topic, kind in types.items()
        if kind in BESIDE and kind != CAMERA_INFO_TYPE and topic not in ignored
    }
    used = {*found_cameras.values(), *found_microphones.values(), pose, *chosen_infos.values(), *beside}
    for topic, kind in types.items():
        if topic not in used and topic not in ignored:
            role = role_of(topic, kind)[0]
            if role:
                ignored[topic] = f"another {role} was asked for"
            elif kind == CAMERA_INFO_TYPE:
                ignored[topic] = "no camera that is used belongs to it"
            else:
                ignored[topic] = UNREAD.get(kind, f"type {kind} is not a camera, microphone or pose")
    return TopicChoice(found_cameras, found_microphones, pose, pose_frames, chosen_infos, beside, ignored, reasons)


def _of_types(topics: Mapping[str, str], types: Iterable[str]) -> list[str]:
    """Topics of the given types, in the order of the types, then by name."""
    return [topic for kind in types for topic in sorted(topics) if topics[topic] == kind]


def _measured(message: Any) -> str:
    return measured_encoding(message) if hasattr(message, "encoding") or hasattr(message, "format") else ""


def _by_source(
    types: Mapping[str, str], wanted: Iterable[str], frames: Mapping[str, str], ignored: dict[str, str]
) -> dict[str, str]:
    """Name each topic's sensor; the first topic of a sensor is used, one of another frame gets its whole name."""
    chosen: dict[str, str] = {}
    for topic in wanted:
        name = role_of(topic, types[topic])[1] or topic.strip("/").replace("/", "_")
        if name in chosen and frames.get(topic, "") != frames.get(chosen[name], ""):
            name = topic.strip("/").replace("/", "_")
        if name in chosen:
            ignored[topic] = f"the same sensor is read from {chosen[name]}"
        else:
            chosen[name] = topic
    return chosen


def _found_pose(
    bag: Bag, topics: list[str], frames: Mapping[str, str], ignored: dict[str, str], reasons: list[str]
) -> str:
    if not topics:
        return ""
    tracks = pose_tracks(bag, topics, set(frames.values()))
    chosen, why, left_out = choose_pose(tracks)
    ignored.update(left_out)
    if chosen:
        reasons.append(f"{chosen} is the robot's pose: {why}")
    return chosen
