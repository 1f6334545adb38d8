"""What a memory still holds as the response of GetTimeline, both ways."""

from __future__ import annotations

from typing import Any

from salmonn_node.messages.base import MessageTypes, duration_message, header_message, stamp_ns, time_message
from salmonn_node.messages.poses import pose_from_message
from salmonn_node.stream.kept_timeline import KeptTimeline, SourceRow
from salmonn_node.stream.observations import SECOND_NS, Pose

COUNTS = ("moments", "kept_tokens", "events")


def fill_timeline(types: MessageTypes, response: Any, timeline: KeptTimeline) -> None:
    """Write a timeline into a response of GetTimeline."""
    response.memory_id = timeline.memory_id
    response.start = time_message(types, timeline.start_ns)
    response.bin = duration_message(types, timeline.bin_ns / SECOND_NS)
    response.rows = [
        types.new(
            "salmonn_interfaces/msg/TimelineRow",
            source=row.source,
            modality=row.modality,
            **{name: list(getattr(row, name)) for name in COUNTS},
        )
        for row in timeline.rows
    ]
    response.path = [_pose_message(types, pose) for pose in timeline.path]
    response.map_id = timeline.path[-1].map_id if timeline.path else ""


def timeline_from_response(response: Any) -> KeptTimeline:
    """The timeline of a response of GetTimeline."""
    rows = (
        SourceRow(str(row.source), str(row.modality), *(tuple(int(n) for n in getattr(row, name)) for name in COUNTS))
        for row in response.rows
    )
    path = tuple(pose_from_message(message, str(response.map_id)) for message in response.path)
    start_ns, bin_ns = stamp_ns(response.start), stamp_ns(response.bin)
    return KeptTimeline(str(response.memory_id), start_ns, bin_ns, tuple(rows), path)


def _pose_message(types: MessageTypes, pose: Pose) -> Any:
    x, y, z = (float(value) for value in pose.position)
    qx, qy, qz, qw = (float(value) for value in pose.orientation)
    return types.new(
        "geometry_msgs/msg/PoseStamped",
        header=header_message(types, pose.stamp_ns, pose.frame_id),
        pose=types.new(
            "geometry_msgs/msg/Pose",
            position=types.new("geometry_msgs/msg/Point", x=x, y=y, z=z),
            orientation=types.new("geometry_msgs/msg/Quaternion", x=qx, y=qy, z=qz, w=qw),
        ),
    )
