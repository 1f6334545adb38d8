"""Questions as messages of salmonn_interfaces, both ways, and what a question must be like."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

from salmonn_node.messages.base import (
    MAX_SEC,
    MessageError,
    MessageTypes,
    duration_message,
    stamp_ns,
    time_message,
)
from salmonn_node.stream.answers import AnswerType, Question
from salmonn_node.stream.observations import SECOND_NS

MAX_TEXT_BYTES = 4096
MAX_CHOICES = 32
MAX_CHOICE_BYTES = 256
MAX_SOURCES = 64
MAX_EVIDENCE = 2**16 - 1  # uint16


def question_from_message(msg: Any) -> Question:
    """Question of a salmonn_interfaces/Question; raises MessageError naming the field that is wrong."""
    return checked_question(
        Question(
            text=str(msg.text),
            answer_type=msg.answer_type,
            choices=tuple(str(c) for c in msg.choices),
            after_ns=stamp_ns(msg.after),
            before_ns=stamp_ns(msg.before),
            sources=tuple(str(s) for s in msg.sources),
            target_frame=str(msg.target_frame),
            timeout_s=stamp_ns(msg.timeout) / SECOND_NS,
            max_evidence=int(msg.max_evidence),
            want_thumbnails=bool(msg.want_thumbnails),
        )
    )


def question_to_message(types: MessageTypes, question: Question) -> Any:
    """salmonn_interfaces/Question, field by field; raises MessageError naming the field that is wrong."""
    question = checked_question(question)
    return types.new(
        "salmonn_interfaces/msg/Question",
        text=question.text,
        answer_type=int(question.answer_type),
        choices=list(question.choices),
        after=time_message(types, question.after_ns),
        before=time_message(types, question.before_ns),
        sources=list(question.sources),
        target_frame=question.target_frame,
        timeout=duration_message(types, question.timeout_s),
        max_evidence=question.max_evidence,
        want_thumbnails=question.want_thumbnails,
    )


def checked_question(question: Question) -> Question:
    """The question with its fields in their types, text stripped; raises MessageError naming a field that is wrong.

    Caller and node check the same, so that a planner hears at once what the node would refuse.
    """
    text = _string("text", question.text, MAX_TEXT_BYTES).strip()
    if not text:
        raise _invalid("text is empty")
    try:
        answer_type = AnswerType(operator.index(question.answer_type))
    except (TypeError, ValueError):
        names = ", ".join(f"{kind.name} ({kind.value})" for kind in AnswerType)
        raise _invalid(f"answer_type is {_shown(question.answer_type)}; it must be one of {names}") from None
    after_ns = checked_stamp("after", question.after_ns)
    before_ns = checked_stamp("before", question.before_ns)
    if before_ns and after_ns > before_ns:
        raise _invalid(f"after ({after_ns} ns) is later than before ({before_ns} ns)")
    sources = _strings("sources", question.sources, MAX_TEXT_BYTES)
    if len(sources) > MAX_SOURCES:
        raise _invalid(f"sources has {len(sources)} entries; at most {MAX_SOURCES} are taken")
    return Question(
        text=text,
        answer_type=answer_type,
        choices=_choices(answer_type, _strings("choices", question.choices, MAX_CHOICE_BYTES)),
        after_ns=after_ns,
        before_ns=before_ns,
        sources=sources,
        target_frame=_string("target_frame", question.target_frame, MAX_TEXT_BYTES),
        timeout_s=checked_seconds("timeout", question.timeout_s),
        max_evidence=_whole("max_evidence", question.max_evidence, MAX_EVIDENCE),
        want_thumbnails=bool(question.want_thumbnails),
    )


def checked_stamp(name: str, stamp_ns: Any) -> int:
    """A stamp in ns that a builtin_interfaces/Time can hold; raises MessageError naming the field."""
    return _whole(name, stamp_ns, (MAX_SEC + 1) * SECOND_NS - 1, " ns")


def checked_seconds(name: str, seconds: Any, *, positive: bool = False) -> float:
    """Seconds that a builtin_interfaces/Duration can hold; raises MessageError naming the field."""
    try:
        value = float(seconds)
    except (TypeError, ValueError, OverflowError):
        raise _invalid(f"{name} is {_shown(seconds)}; it must be a number of seconds") from None
    if not 0 <= value <= MAX_SEC:
        raise _invalid(f"{name} is {value} s; it must lie between 0 and {MAX_SEC} s")
    if positive and not value:
        raise _invalid(f"{name} is 0; it must be more")
    return value


def _invalid(text: str) -> MessageError:
    return MessageError("invalid_request", text)


def _shown(value: Any) -> str:
    return repr(value)[:40]


def _whole(name: str, value: Any, most: int, unit: str = "") -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise _invalid(f"{name} is {_shown(value)}; it must be a whole number") from None
    if number < 0:
        raise _invalid(f"{name} is {number}{unit}; it must not be negative")
    if number > most:
        raise _invalid(f"{name} is {number}{unit}; it must be at most {most}{unit}")
    return number


def _string(name: str, value: Any, most_bytes: int) -> str:
    if not isinstance(value, str):
        raise _invalid(f"{name} is {_shown(value)}; it must be a string")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise _invalid(f"{name} holds half a character (a lone surrogate)") from None
    if "\0" in value:
        raise _invalid(f"{name} holds a zero character; ROS would cut the text off there")
    if size > most_bytes:
        raise _invalid(f"{name} has {size} bytes; at most {most_bytes} are taken")
    return value


def _strings(name: str, values: Any, most_bytes: int) -> tuple[str, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise _invalid(f"{name} is {_shown(values)}; it must be a list of strings")
    return tuple(_string(f"an entry of {name}", value, most_bytes) for value in values)


def _choices(answer_type: AnswerType, choices: Sequence[str]) -> tuple[str, ...]:
    if answer_type != AnswerType.CHOICE:
        if choices:
            raise _invalid(f"choices are given, but answer_type is {answer_type.name}, not CHOICE")
        return ()
    stripped = tuple(c.strip() for c in choices)
    if not 2 <= len(stripped) <= MAX_CHOICES:
        raise _invalid(f"choices has {len(stripped)} entries; CHOICE needs 2 to {MAX_CHOICES}")
    if not all(stripped):
        raise _invalid("an entry of choices is empty")
    if len(set(stripped)) != len(stripped):
        raise _invalid("choices must differ from each other")
    return stripped
