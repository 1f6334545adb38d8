"""Evidence as 2D detections of vision_msgs, for what draws boxes or tracks objects on a robot."""

from __future__ import annotations

from typing import Any

import numpy as np

from salmonn_node.messages.answers import evidence_from_message
from salmonn_node.messages.base import MessageTypes, header_message

DETECTIONS = "vision_msgs/msg/Detection2DArray"


def detections_to_message(types: MessageTypes, text: str, answer: Any) -> Any:
    """vision_msgs/Detection2DArray: a detection for each piece of evidence that has a region, strongest first.

    A detection's stamp and frame are those of the picture, its box is in pixels of the camera's own picture, its id is
    the camera. Its class is the question, its score the evidence's share of the answer; there is no 3D pose.

    Args:
        types: makes the messages; must know vision_msgs.
        text: the question.
        answer: salmonn_interfaces/Answer.
    """
    new = types.new
    found = []
    for piece in map(evidence_from_message, answer.evidence):
        region = piece.region
        if region is None:
            continue
        centre = new("vision_msgs/msg/Point2D", x=region.x + region.width / 2, y=region.y + region.height / 2)
        box = new(
            "vision_msgs/msg/BoundingBox2D",
            center=new("vision_msgs/msg/Pose2D", position=centre, theta=0.0),
            size_x=float(region.width),
            size_y=float(region.height),
        )
        hypothesis = new("vision_msgs/msg/ObjectHypothesis", class_id=text, score=piece.score)
        result = new("vision_msgs/msg/ObjectHypothesisWithPose", hypothesis=hypothesis, pose=_no_pose(types))
        found.append(
            new(
                "vision_msgs/msg/Detection2D",
                header=header_message(types, piece.interval.start_ns, piece.frame_id),
                results=[result],
                bbox=box,
                id=piece.source,
            )
        )
    header = found[0].header if found else header_message(types, 0, "")
    return new(DETECTIONS, header=header, detections=found)


def _no_pose(types: MessageTypes) -> Any:
    """A geometry_msgs/PoseWithCovariance that says that nothing is known: -1 is the convention for a covariance."""
    new = types.new
    return new(
        "geometry_msgs/msg/PoseWithCovariance",
        pose=new(
            "geometry_msgs/msg/Pose",
            position=new("geometry_msgs/msg/Point", x=0.0, y=0.0, z=0.0),
            orientation=new("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
        ),
        covariance=np.concatenate([[-1.0], np.zeros(35)]),
    )
