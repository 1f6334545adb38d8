"""Tools for language models: JSON schemas of the calls `ask` and `watch`, and answers as JSON.

Names, types and descriptions come from the installed Question.msg, so the tools always match the interface. Stamps and
durations are in seconds. Answer types are given by name.
"""

from __future__ import annotations

import functools
import math
import os
import re
import sys
import threading
from pathlib import Path
from typing import Any

from salmonn_interfaces.msg import Question
from salmonn_node.client.memory_client import Memory, Watched
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Evidence
from salmonn_node.stream.observations import SECOND_NS, Pose

ASK, WATCH = "ask", "watch"
ASK_TEXT = (
    "Ask the robot's memory what its cameras and microphones have perceived. The answer is typed and names its "
    "evidence. NOT_OBSERVED means that the memory holds nothing about it; it does not mean no."
)
WATCH_TEXT = (
    "Wait at most `wait` seconds until the answer to a yes-or-no question about new observations is yes. "
    "`became_true` says whether it did; the evidence says when."
)
JSON_TYPES: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "boolean": {"type": "boolean"},
    "uint8": {"type": "integer", "minimum": 0, "maximum": 2**8 - 1},
    "uint16": {"type": "integer", "minimum": 0, "maximum": 2**16 - 1},
    "sequence<string>": {"type": "array", "items": {"type": "string"}},
    "builtin_interfaces/Time": {"type": "number", "minimum": 0, "maximum": 2**31 - 1},
    "builtin_interfaces/Duration": {"type": "number", "minimum": 0, "maximum": 2**31 - 1},
}
DEFAULT_TIMEOUT_S, DEFAULT_WAIT_S, MAX_WAIT_S = 10.0, 60.0, 3600.0


def ask_schema() -> dict[str, Any]:
    """JSON schema of the arguments of `ask`."""
    comments = _comments()
    properties = {
        field: {**JSON_TYPES[kind], "description": comments.get(field, "")}
        for field, kind in Question.get_fields_and_field_types().items()
    }
    properties["answer_type"] = {"enum": [t.name for t in AnswerType], "description": "type of answer that you want"}
    properties["text"]["minLength"] = 1
    return {"type": "object", "properties": properties, "required": ["text"], "additionalProperties": False}


def watch_schema() -> dict[str, Any]:
    """JSON schema of the arguments of `watch`."""
    asked = ask_schema()["properties"]
    properties = {name: asked[name] for name in ("text", "sources", "timeout")}
    properties["after"] = {
        **asked["after"],
        "description": "also look at the memory from this stamp on; 0: only at new observations",
    }
    properties["wait"] = {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": MAX_WAIT_S,
        "description": f"seconds after which to give up (default: {DEFAULT_WAIT_S:.0f})",
    }
    return {"type": "object", "properties": properties, "required": ["text"], "additionalProperties": False}


def descriptions() -> list[dict[str, Any]]:
    """Name, description and input schema of each tool, in the format of MCP and most model APIs."""
    return [
        {"name": ASK, "description": ASK_TEXT, "inputSchema": ask_schema()},
        {"name": WATCH, "description": WATCH_TEXT, "inputSchema": watch_schema()},
    ]


def ask(memory: Memory, arguments: dict[str, Any], cancel: threading.Event | None = None) -> Answer:
    """Run a call of the tool `ask`. The arguments must fit its schema."""
    return memory.ask(
        arguments["text"],
        answer_type=AnswerType[arguments.get("answer_type", "ANY")],
        choices=arguments.get("choices", []),
        after_ns=_stamp_ns(arguments.get("after", 0)),
        before_ns=_stamp_ns(arguments.get("before", 0)),
        sources=arguments.get("sources", []),
        target_frame=arguments.get("target_frame", ""),
        timeout_s=arguments.get("timeout", 0) or DEFAULT_TIMEOUT_S,
        max_evidence=arguments.get("max_evidence", 0),
        want_thumbnails=arguments.get("want_thumbnails", False),
        cancel=cancel,
    )


def watch(memory: Memory, arguments: dict[str, Any], cancel: threading.Event) -> Watched:
    """Run a call of the tool `watch`. The arguments must fit its schema. Sets `cancel` when `wait` is over."""
    over = threading.Timer(arguments.get("wait", DEFAULT_WAIT_S), cancel.set)
    over.daemon = True
    over.start()
    try:
        return memory.watch(
            arguments["text"],
            after_ns=_stamp_ns(arguments.get("after", 0)),
            sources=arguments.get("sources", []),
            timeout_s=arguments.get("timeout", 0) or DEFAULT_TIMEOUT_S,
            cancel=cancel,
        )
    finally:
        over.cancel()


def watched_as_json(watched: Watched) -> dict[str, Any]:
    """The result of a watch as JSON values. A watch that ran out of time is no error."""
    answer = watched.answer
    over = answer.error_code == ErrorCode.CANCELED and not watched.became_true
    found = {"error_code": "NONE"} if over else answer_as_json(answer)
    return {"became_true": watched.became_true, "evaluations": watched.evaluations, **found}


def answer_as_json(answer: Answer) -> dict[str, Any]:
    """The fields of an answer that apply to its type, as JSON values; stamps in seconds."""
    found: dict[str, Any] = {"error_code": answer.error_code.name}
    if answer.error_code:
        return found | {"error_msg": answer.error_msg}
    found |= {"outcome": answer.outcome.name, "answer_type": answer.answer_type.name, "text": answer.text}
    values: dict[AnswerType, dict[str, Any]] = {
        AnswerType.BINARY: {"binary": answer.binary},
        AnswerType.CHOICE: {"choice_index": answer.choice_index},
        AnswerType.COUNT: {"count": answer.count},
        AnswerType.DURATION: {"duration_s": answer.duration_s},
        AnswerType.POSITION: {"pose": _pose(answer.pose), "pose_kind": answer.pose_kind.name},
    }
    found |= values.get(answer.answer_type, {})
    if answer.event is not None:
        found["event_s"] = [answer.event.start_ns / SECOND_NS, answer.event.end_ns / SECOND_NS]
    found["confidence"] = None if math.isnan(answer.confidence) else answer.confidence
    return found | {"evidence": [_evidence(e) for e in answer.evidence]}


def _evidence(evidence: Evidence) -> dict[str, Any]:
    return {
        "source": evidence.source,
        "modality": evidence.modality,
        "seen_s": [evidence.interval.start_ns / SECOND_NS, evidence.interval.end_ns / SECOND_NS],
        "score": round(evidence.score, 3),
        "robot": _pose(evidence.pose),
    }


def _pose(pose: Pose | None) -> dict[str, Any] | None:
    if pose is None:
        return None
    return {"frame_id": pose.frame_id, "map_id": pose.map_id, "position_m": [float(x) for x in pose.position]}


def _stamp_ns(seconds: float) -> int:
    return round(seconds * SECOND_NS)


@functools.cache
def _comments() -> dict[str, str]:
    """The comment behind each field in the interface file; empty if the file is not installed."""
    # A ROS installation lists its prefixes; packages from pip are under Python's own prefix.
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p] + [sys.prefix]
    files = [Path(p) / "share/salmonn_interfaces/msg/Question.msg" for p in prefixes]
    text = next((f.read_text(encoding="utf-8") for f in files if f.is_file()), "")
    found = (re.fullmatch(r"[\w/]+(?:\[\])?\s+(\w+)\s+#\s*(.+)", line) for line in text.splitlines())
    return {match[1]: match[2] for match in found if match}
