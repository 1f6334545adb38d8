"""The memory as a tool of a language model: the JSON schema of a question, made from the ROS interface itself.

A language model that plans for a robot calls tools that are described by JSON schemas. Run this file to print such a
description of the query service; most model APIs take it as it stands. Names, types and descriptions come from the
installed Question.msg, so that the tool cannot drift away from the interface. Stamps and durations are numbers of
seconds, and answer types go by their names. `ask(memory, arguments)` carries a call out and gives a JSON value back:
first `error_code`, then `outcome`, then the value; a model must be told that NOT_OBSERVED means "I have not seen it",
which is not "no". Evidence comes with stamps and poses, so that what the model says can be checked.

    python examples/question_schema.py
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from pathlib import Path
from typing import Any

from salmonn_interfaces.msg import Question
from salmonn_node.client import Answer, AnswerType, Evidence, Memory
from salmonn_node.stream.observations import Pose

NAME = "ask_memory"
TEXT = (
    "Ask the robot's memory of what its cameras and microphones have perceived. The answer is typed and names its "
    "evidence. NOT_OBSERVED means that the memory holds nothing about it, not that the answer is no."
)
JSON_TYPES = {
    "string": {"type": "string"},
    "boolean": {"type": "boolean"},
    "uint8": {"type": "integer", "minimum": 0, "maximum": 2**8 - 1},
    "uint16": {"type": "integer", "minimum": 0, "maximum": 2**16 - 1},
    "sequence<string>": {"type": "array", "items": {"type": "string"}},
    "builtin_interfaces/Time": {"type": "number", "minimum": 0},
    "builtin_interfaces/Duration": {"type": "number", "minimum": 0},
}
NANO = 1e-9
DEFAULT_TIMEOUT_S = 10.0


def tool() -> dict[str, Any]:
    """Name, description and input schema of the tool."""
    comments = _comments()
    properties = {
        field: {**JSON_TYPES[kind], "description": comments.get(field, "")}
        for field, kind in Question.get_fields_and_field_types().items()
    }
    properties["answer_type"] = {"enum": [t.name for t in AnswerType], "description": "What kind of answer is wanted."}
    del properties["want_thumbnails"]  # a language model reads no JPEG out of JSON
    schema = {"type": "object", "properties": properties, "required": ["text"], "additionalProperties": False}
    return {"name": NAME, "description": TEXT, "inputSchema": schema}


def ask(memory: Memory, arguments: dict[str, Any]) -> dict[str, Any]:
    """Carry a call out; raises ValueError or TypeError naming an argument that does not fit the schema."""
    properties = tool()["inputSchema"]["properties"]
    unknown = sorted(set(arguments) - set(properties))
    if unknown or not isinstance(arguments.get("text"), str):
        raise ValueError(f"unknown arguments: {unknown}" if unknown else "text is missing, or is no string")
    kind = arguments.get("answer_type", "ANY")
    if kind not in AnswerType.__members__:
        raise ValueError(f"answer_type must be one of {list(AnswerType.__members__)}, got {kind!r}")
    fields = {
        "answer_type": AnswerType[kind],
        "choices": [str(c) for c in arguments.get("choices", [])],
        "after_ns": round(float(arguments.get("after", 0)) / NANO),
        "before_ns": round(float(arguments.get("before", 0)) / NANO),
        "sources": [str(s) for s in arguments.get("sources", [])],
        "target_frame": str(arguments.get("target_frame", "")),
        "timeout_s": float(arguments.get("timeout", 0)) or DEFAULT_TIMEOUT_S,
        "max_evidence": int(arguments.get("max_evidence", 0)),
    }
    return answer_as_json(memory.ask(arguments["text"], **fields))


def answer_as_json(answer: Answer) -> dict[str, Any]:
    """The fields of an answer that mean something; stamps in seconds."""
    found: dict[str, Any] = {"error_code": answer.error_code.name}
    if answer.error_code:
        return found | {"error_msg": answer.error_msg}
    found |= {"outcome": answer.outcome.name, "answer_type": answer.answer_type.name, "text": answer.text}
    values = {
        AnswerType.BINARY: {"binary": answer.binary},
        AnswerType.CHOICE: {"choice_index": answer.choice_index},
        AnswerType.COUNT: {"count": answer.count},
        AnswerType.DURATION: {"duration_s": answer.duration_s},
        AnswerType.POSITION: {"pose": _pose(answer.pose), "pose_kind": answer.pose_kind.name},
    }
    found |= values.get(answer.answer_type, {})
    if answer.event is not None:
        found["event_s"] = [answer.event.start_ns * NANO, answer.event.end_ns * NANO]
    found["confidence"] = None if math.isnan(answer.confidence) else answer.confidence
    return found | {"evidence": [_evidence(e) for e in answer.evidence]}


def _evidence(evidence: Evidence) -> dict[str, Any]:
    seen_s = [evidence.interval.start_ns * NANO, evidence.interval.end_ns * NANO]
    return {
        "source": evidence.source,
        "seen_s": seen_s,
        "score": round(evidence.score, 3),
        "robot": _pose(evidence.pose),
    }


def _pose(pose: Pose | None) -> dict[str, Any] | None:
    if pose is None:
        return None
    return {"frame_id": pose.frame_id, "map_id": pose.map_id, "position_m": [float(x) for x in pose.position]}


def _comments() -> dict[str, str]:
    """What the interface file says behind each field."""
    # A ROS installation names its prefixes; packages from pip lie under Python's own.
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p] + [sys.prefix]
    files = [Path(p) / "share/salmonn_interfaces/msg/Question.msg" for p in prefixes]
    lines = next(f for f in files if f.is_file()).read_text().splitlines()
    found = (re.fullmatch(r"[\w/]+(?:\[\])?\s+(\w+)\s+#\s*(.+)", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


if __name__ == "__main__":
    print(json.dumps(tool(), indent=2))
