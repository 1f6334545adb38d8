"""Evidence of the last answers on the map: arrows where the robot was, with question and answer as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from salmonn_node.messages.base import MessageTypes, duration_message, header_message

ANSWERS_SHOWN = 5
ARROW_M = (0.5, 0.08, 0.08)  # length, width and height of an arrow
TEXT_HEIGHT_M = 0.2
CAPTION_BYTES = 80
VISION_RGB, AUDIO_RGB = (0.1, 0.6, 1.0), (1.0, 0.6, 0.1)
# Of visualization_msgs/Marker.
ARROW, TEXT_VIEW_FACING, ADD, DELETEALL = 0, 9, 0, 3


def evidence_markers(types: MessageTypes, answers: Sequence[tuple[str, Any]]) -> Any:
    """Make a MarkerArray with an arrow where the robot was when it observed each piece of evidence.

    Poses from another memory or map than the newest answer's are left out, because they would be drawn at the wrong
    place. The stamps are zero, which tells a viewer to use the newest transform. The transforms from the time of the
    observation are no longer available.

    Args:
        types: makes the messages.
        answers: (text of the question, Answer message), newest first; older ones fade.
    """
    markers = [_marker(types, action=DELETEALL)]
    newest = answers[0][1] if answers else None
    map_id = next((e.map_id for e in newest.evidence if e.observer_pose_valid), "") if newest else ""
    for age, (text, answer) in enumerate(answers):
        if newest is None or answer.memory_id != newest.memory_id:
            continue
        for rank, evidence in enumerate(answer.evidence):
            if evidence.observer_pose_valid and evidence.map_id == map_id:
                opacity = 1.0 - age / (ANSWERS_SHOWN + 1)
                markers += _markers(types, f"answer_{age}", rank, evidence, opacity, f"{text}\n{answer.text}")
    return types.new("visualization_msgs/msg/MarkerArray", markers=markers)


def _markers(types: MessageTypes, namespace: str, rank: int, evidence: Any, opacity: float, caption: str) -> list[Any]:
    frame_id, pose = evidence.observer_pose.header.frame_id, evidence.observer_pose.pose.pose
    colour = AUDIO_RGB if evidence.modality == "audio" else VISION_RGB
    arrow = _marker(
        types,
        ns=namespace,
        id=2 * rank,
        type=ARROW,
        header=header_message(types, 0, frame_id),
        pose=pose,
        scale=_vector(types, *ARROW_M),
        color=_colour(types, *colour, opacity),
    )
    if rank:
        return [arrow]
    place = _pose(types, pose.position.x, pose.position.y, pose.position.z + 0.4)
    label = _marker(
        types,
        ns=namespace,
        id=2 * rank + 1,
        type=TEXT_VIEW_FACING,
        header=header_message(types, 0, frame_id),
        pose=place,
        scale=_vector(types, 0.0, 0.0, TEXT_HEIGHT_M),
        color=_colour(types, 1.0, 1.0, 1.0, opacity),
        text="\n".join(line[:CAPTION_BYTES] for line in caption.split("\n")[:2]),
    )
    return [arrow, label]


def _marker(types: MessageTypes, **fields: Any) -> Any:
    """A Marker with all its fields: rosbags has no defaults."""
    new = types.new
    empty: dict[str, Any] = {
        "header": header_message(types, 0, ""),
        "ns": "",
        "id": 0,
        "type": ARROW,
        "action": ADD,
        "pose": _pose(types, 0.0, 0.0, 0.0),
        "scale": _vector(types, 0.0, 0.0, 0.0),
        "color": _colour(types, 0.0, 0.0, 0.0, 0.0),
        "lifetime": duration_message(types, 0.0),
        "frame_locked": False,
        "points": [],
        "colors": [],
        "texture_resource": "",
        "texture": new(
            "sensor_msgs/msg/CompressedImage",
            header=header_message(types, 0, ""),
            format="",
            data=types.data(b""),
        ),
        "uv_coordinates": [],
        "text": "",
        "mesh_resource": "",
        "mesh_file": new("visualization_msgs/msg/MeshFile", filename="", data=types.data(b"")),
        "mesh_use_embedded_materials": False,
    }
    return new("visualization_msgs/msg/Marker", **(empty | fields))


def _pose(types: MessageTypes, x: float, y: float, z: float) -> Any:
    """A geometry_msgs/Pose at a place (m), not turned."""
    return types.new(
        "geometry_msgs/msg/Pose",
        position=types.new("geometry_msgs/msg/Point", x=x, y=y, z=z),
        orientation=types.new("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
    )


def _vector(types: MessageTypes, x: float, y: float, z: float) -> Any:
    return types.new("geometry_msgs/msg/Vector3", x=x, y=y, z=z)


def _colour(types: MessageTypes, r: float, g: float, b: float, a: float) -> Any:
    return types.new("std_msgs/msg/ColorRGBA", r=r, g=g, b=b, a=a)
