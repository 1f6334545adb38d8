"""A typed answer for people and as JSON, and the exit status that it stands for."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Outcome
from salmonn_node.stream.observations import Interval


def exit_status(answer: Answer) -> int:
    """0: there is an answer, 1: not observed or ambiguous, 2: an error."""
    if answer.error_code != ErrorCode.NONE:
        return 2
    return 0 if answer.outcome == Outcome.ANSWERED else 1


def describe(answer: Answer, start_ns: int = 0, pictures: Sequence[Path | None] = ()) -> str:
    """The answer in a few lines for a person.

    Args:
        answer: what to show.
        start_ns: times are shown in seconds since this stamp.
        pictures: files of the evidence's pictures, in its order; None where there is none.
    """

    def span(interval: Interval) -> str:
        return f"{(interval.start_ns - start_ns) / 1e9:.2f} .. {(interval.end_ns - start_ns) / 1e9:.2f} s"

    if answer.error_code != ErrorCode.NONE:
        return f"{answer.error_code.name}: {answer.error_msg}"
    lines = [answer.text or "(no text)", f"  outcome     {answer.outcome.name}, {answer.answer_type.name}"]
    if answer.answer_type == AnswerType.BINARY:
        lines.append(f"  binary      {'yes' if answer.binary else 'no'}")
    if answer.answer_type == AnswerType.CHOICE:
        lines.append(f"  choice      {answer.choice_index}")
    if answer.answer_type == AnswerType.COUNT:
        lines.append(f"  count       {answer.count}")
    if answer.pose is not None:
        x, y, z = answer.pose.position
        frame = answer.pose.frame_id + (f" of {answer.map_id}" if answer.map_id else "")
        lines.append(f"  position    {x:.2f} {y:.2f} {z:.2f} m in {frame} ({answer.pose_kind.name})")
    if answer.event is not None:
        lines.append(f"  event       {span(answer.event)}")
    if not math.isnan(answer.confidence):
        lines.append(f"  confidence  {answer.confidence:.2f}")
    for number, item in enumerate(answer.evidence):
        picture = pictures[number] if number < len(pictures) else None
        shown = f"{item.source} ({item.modality}) {span(item.interval)}, weight {item.score:.2f}"
        lines.append(f"  evidence    {shown}" + (f", {picture}" if picture else ""))
    lines.append(f"  latency     {answer.latency_s:.3f} s")
    return "\n".join(lines)


def plain_values(value: Any) -> Any:
    """JSON's types: names for enumerations, lists for arrays, null for NaN, lengths for pictures."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, bytes):
        return {"bytes": len(value)}
    if isinstance(value, np.ndarray):
        return plain_values(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (list, tuple)):
        return [plain_values(item) for item in value]
    if dataclasses.is_dataclass(value):
        return {f.name: plain_values(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value
