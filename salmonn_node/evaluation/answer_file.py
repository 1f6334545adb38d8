"""Answer file: answers as JSON lines, without values that depend on the machine's clock."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Evidence, Outcome, PoseKind, Region
from salmonn_node.stream.observations import Interval, Pose


@dataclass(frozen=True)
class Answered:
    """A question of a replay with its answer.

    Attributes:
        id, stream: id and stream of the question.
        answer: the answer. Its latency goes into the timings, not into the answer file.
    """

    id: str
    stream: str
    answer: Answer


def to_line(answered: Answered) -> str:
    """Return one line. Without latency and memory id, the same answer gives the same bytes on every run."""
    return json.dumps({"id": answered.id, "stream": answered.stream, "answer": answer_to_json(answered.answer)})


def read_answers(path: Path) -> Iterator[Answered]:
    """Read an answer file. Skips a last line that a kill cut off.

    Raises:
        ValueError: a line other than the last is damaged. The message names file and line.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            yield Answered(row["id"], row["stream"], answer_from_json(row["answer"]))
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                return
            raise ValueError(f"{path}:{number}: not an answer: {error}") from None


def write_answers(path: Path, answers: Iterable[Answered]) -> None:
    """Write all answers to a new file, atomically."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(to_line(answered) + "\n" for answered in answers)
    temporary.replace(path)


def answer_to_json(answer: Answer) -> dict[str, Any]:
    """Convert an answer to JSON values. Thumbnails are in separate files, and NaN becomes null."""
    return {
        "error": answer.error_code.name,
        "error_msg": answer.error_msg,
        "outcome": answer.outcome.name,
        "type": answer.answer_type.name,
        "text": answer.text,
        "binary": answer.binary,
        "choice_index": answer.choice_index,
        "count": answer.count,
        "duration_s": answer.duration_s,
        "event": _interval(answer.event),
        "pose": _pose(answer.pose),
        "pose_kind": answer.pose_kind.name,
        "confidence": None if math.isnan(answer.confidence) else answer.confidence,
        "map_id": answer.map_id,
        "memory_start_ns": answer.memory_start_ns,
        "last_observation_ns": answer.last_observation_ns,
        "evidence": [
            {
                "interval": _interval(piece.interval),
                "modality": piece.modality,
                "source": piece.source,
                "frame_id": piece.frame_id,
                "score": piece.score,
                "pose": _pose(piece.pose),
                "region": _region(piece.region),
            }
            for piece in answer.evidence
        ],
    }


def answer_from_json(row: dict[str, Any]) -> Answer:
    """Make an answer from the values of `answer_to_json`. Missing values have their defaults."""
    return Answer(
        error_code=ErrorCode[row["error"]],
        error_msg=row["error_msg"],
        outcome=Outcome[row["outcome"]],
        answer_type=AnswerType[row["type"]],
        text=row["text"],
        binary=row["binary"],
        choice_index=row["choice_index"],
        count=row["count"],
        duration_s=row["duration_s"],
        event=_read_interval(row["event"]),
        pose=_read_pose(row["pose"]),
        pose_kind=PoseKind[row["pose_kind"]],
        confidence=math.nan if row["confidence"] is None else row["confidence"],
        map_id=row["map_id"],
        memory_start_ns=row["memory_start_ns"],
        last_observation_ns=row["last_observation_ns"],
        evidence=tuple(
            Evidence(
                interval=Interval(*piece["interval"]),
                modality=piece["modality"],
                source=piece["source"],
                frame_id=piece["frame_id"],
                score=piece["score"],
                pose=_read_pose(piece["pose"]),
                region=Region(*piece["region"]) if piece.get("region") else None,
            )
            for piece in row["evidence"]
        ),
    )


def _interval(interval: Interval | None) -> list[int] | None:
    return None if interval is None else [interval.start_ns, interval.end_ns]


def _read_interval(row: list[int] | None) -> Interval | None:
    return None if row is None else Interval(*row)


def _region(region: Region | None) -> list[int] | None:
    if region is None:
        return None
    return [region.x, region.y, region.width, region.height, region.picture_width, region.picture_height]


def _pose(pose: Pose | None) -> dict[str, Any] | None:
    if pose is None:
        return None
    return {
        "stamp_ns": pose.stamp_ns,
        "frame_id": pose.frame_id,
        "position": [float(v) for v in pose.position],
        "orientation": [float(v) for v in pose.orientation],
        "covariance": None if pose.covariance is None else [float(v) for v in np.ravel(pose.covariance)],
        "map_id": pose.map_id,
        "child_frame_id": pose.child_frame_id,
    }


def _read_pose(row: dict[str, Any] | None) -> Pose | None:
    if row is None:
        return None
    covariance = row["covariance"]
    return Pose(
        stamp_ns=row["stamp_ns"],
        frame_id=row["frame_id"],
        position=np.array(row["position"]),
        orientation=np.array(row["orientation"]),
        covariance=None if covariance is None else np.array(covariance).reshape(6, 6),
        map_id=row["map_id"],
        child_frame_id=row["child_frame_id"],
    )
