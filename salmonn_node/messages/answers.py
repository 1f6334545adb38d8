"""Answers and their evidence as messages of salmonn_interfaces, both ways."""

from __future__ import annotations

import math
from typing import Any

from salmonn_node.messages.base import MessageTypes, duration_message, header_message, stamp_ns, time_message
from salmonn_node.messages.poses import pose_from_message, pose_to_message
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Evidence, Outcome, PoseKind, Region
from salmonn_node.stream.observations import SECOND_NS, Interval, Pose


def evidence_to_message(types: MessageTypes, evidence: Evidence) -> Any:
    """salmonn_interfaces/Evidence; the thumbnail's header carries the interval's start."""
    header = header_message(types, evidence.interval.start_ns, evidence.frame_id)
    region = evidence.region or Region(0, 0, 0, 0, 0, 0)
    return types.new(
        "salmonn_interfaces/msg/Evidence",
        header=header,
        span=duration_message(types, evidence.interval.duration_s),
        modality=evidence.modality,
        source=evidence.source,
        observer_pose=pose_to_message(types, evidence.pose),
        observer_pose_valid=evidence.pose is not None,
        map_id=evidence.pose.map_id if evidence.pose else "",
        thumbnail=types.new(
            "sensor_msgs/msg/CompressedImage",
            header=header,
            format="jpeg" if evidence.thumbnail else "",
            data=types.data(evidence.thumbnail),
        ),
        region=types.new(
            "sensor_msgs/msg/RegionOfInterest",
            x_offset=region.x,
            y_offset=region.y,
            height=region.height,
            width=region.width,
            do_rectify=False,
        ),
        picture_width=region.picture_width,
        picture_height=region.picture_height,
        score=float(evidence.score),
    )


def evidence_from_message(msg: Any) -> Evidence:
    """Evidence of a salmonn_interfaces/Evidence."""
    start = stamp_ns(msg.header.stamp)
    return Evidence(
        interval=Interval(start, start + stamp_ns(msg.span)),
        modality=str(msg.modality),
        source=str(msg.source),
        frame_id=str(msg.header.frame_id),
        score=float(msg.score),
        pose=pose_from_message(msg.observer_pose, str(msg.map_id)) if msg.observer_pose_valid else None,
        thumbnail=bytes(msg.thumbnail.data),
        region=_region(msg),
    )


def _region(msg: Any) -> Region | None:
    box, width, height = msg.region, int(msg.picture_width), int(msg.picture_height)
    if not (box.width and box.height and width and height):
        return None
    return Region(int(box.x_offset), int(box.y_offset), int(box.width), int(box.height), width, height)


def answer_to_message(types: MessageTypes, answer: Answer) -> Any:
    """salmonn_interfaces/Answer, field by field."""
    return types.new(
        "salmonn_interfaces/msg/Answer",
        error_code=int(answer.error_code),
        error_msg=answer.error_msg,
        outcome=int(answer.outcome),
        answer_type=int(answer.answer_type),
        text=answer.text,
        binary=bool(answer.binary),
        choice_index=int(answer.choice_index),
        pose=pose_to_message(types, answer.pose),
        pose_kind=int(answer.pose_kind),
        event_start=time_message(types, answer.event.start_ns if answer.event else 0),
        event_end=time_message(types, answer.event.end_ns if answer.event else 0),
        duration=duration_message(types, answer.duration_s),
        count=max(0, min(int(answer.count), 2**32 - 1)),
        confidence=float(answer.confidence),
        evidence=[evidence_to_message(types, e) for e in answer.evidence],
        map_id=answer.map_id,
        memory_id=answer.memory_id,
        memory_start=time_message(types, answer.memory_start_ns),
        last_observation=time_message(types, answer.last_observation_ns),
        latency=duration_message(types, answer.latency_s),
    )


def answer_from_message(msg: Any) -> Answer:
    """Answer of a salmonn_interfaces/Answer; raises ValueError when a code is unknown."""
    start, end = stamp_ns(msg.event_start), stamp_ns(msg.event_end)
    pose: Pose | None = pose_from_message(msg.pose, str(msg.map_id)) if msg.pose.header.frame_id else None
    confidence = float(msg.confidence)
    return Answer(
        error_code=ErrorCode(msg.error_code),
        error_msg=str(msg.error_msg),
        outcome=Outcome(msg.outcome),
        answer_type=AnswerType(msg.answer_type),
        text=str(msg.text),
        binary=bool(msg.binary),
        choice_index=int(msg.choice_index),
        pose=pose,
        pose_kind=PoseKind(msg.pose_kind),
        event=Interval(start, end) if end else None,
        duration_s=stamp_ns(msg.duration) / SECOND_NS,
        count=int(msg.count),
        confidence=math.nan if math.isnan(confidence) else confidence,
        evidence=tuple(evidence_from_message(e) for e in msg.evidence),
        map_id=str(msg.map_id),
        memory_id=str(msg.memory_id),
        memory_start_ns=stamp_ns(msg.memory_start),
        last_observation_ns=stamp_ns(msg.last_observation),
        latency_s=stamp_ns(msg.latency) / SECOND_NS,
    )
