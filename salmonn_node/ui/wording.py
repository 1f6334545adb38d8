"""Times, places and values in a person's words, and times as a person types them."""

from __future__ import annotations

import math
import re
import time

import numpy as np

from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Outcome, PoseKind
from salmonn_node.stream.observations import SECOND_NS, Interval, Pose

TYPE_WORDS = {
    AnswerType.ANY: "whatever fits",
    AnswerType.TEXT: "words",
    AnswerType.BINARY: "yes or no",
    AnswerType.POSITION: "where",
    AnswerType.TIME: "when",
    AnswerType.DURATION: "how long",
    AnswerType.COUNT: "how many",
    AnswerType.CHOICE: "one of these",
}
OUTCOME_WORDS = {
    Outcome.ANSWERED: ("Answered", "good", "The memory supports this."),
    Outcome.NOT_OBSERVED: ("Not observed", "quiet", "The memory holds nothing about it. That does not mean no."),
    Outcome.AMBIGUOUS: ("Ambiguous", "warn", "Several far-apart moments fit about as well. The evidence lists them."),
}
ERROR_WORDS = {
    ErrorCode.NOT_ACTIVE: "Nobody answers",
    ErrorCode.INVALID_REQUEST: "Cannot be asked like this",
    ErrorCode.TIMEOUT: "Too late",
    ErrorCode.BUSY: "Busy",
    ErrorCode.TRANSFORM_ERROR: "No way into that frame",
    ErrorCode.EMPTY_MEMORY: "Nothing observed then",
    ErrorCode.MODEL_ERROR: "The network failed",
    ErrorCode.CANCELED: "Canceled",
}
EPOCH_NS = 10**18  # a stamp beyond this is a time of day; a simulation counts from zero
CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d*)?))?")


def when(stamp_ns: int, origin_ns: int = 0) -> str:
    """A stamp: seconds since the origin, or the local time of day, or seconds of a simulation's clock."""
    if origin_ns or stamp_ns < EPOCH_NS:
        return f"{(stamp_ns - origin_ns) / SECOND_NS:.1f} s"
    return time.strftime("%H:%M:%S", time.localtime(stamp_ns // SECOND_NS))


def span(interval: Interval, origin_ns: int = 0) -> str:
    """An interval in words; one time when it is short."""
    start, end = when(interval.start_ns, origin_ns), when(interval.end_ns, origin_ns)
    return start if start == end else f"{start} to {end}"


def ago(stamp_ns: int, now_ns: int) -> str:
    """How long a stamp lies before now, both of one clock."""
    return "now" if now_ns - stamp_ns < SECOND_NS else f"{seconds((now_ns - stamp_ns) / SECOND_NS)} earlier"


def seconds(value: float) -> str:
    """A length of time in the unit that fits it."""
    for unit, size in (("days", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if value >= 2 * size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"


def size(count: int) -> str:
    """A number of bytes."""
    return f"{count / (1 << 20):.1f} MiB" if count >= 1 << 20 else f"{count / 1024:.0f} KiB"


def place(pose: Pose | None) -> str:
    """A position with frame and map, in metres."""
    if pose is None:
        return "place unknown"
    x, y, _ = (float(v) for v in pose.position)
    spread = "" if pose.covariance is None else f" ± {spread_m(pose):.2f} m"
    return f"x {x:.2f} m, y {y:.2f} m{spread} in {pose.frame_id}" + (f" of {pose.map_id}" if pose.map_id else "")


def spread_m(pose: Pose) -> float:
    """Standard deviation along the worst horizontal direction, metres; 0 when it is not known."""
    if pose.covariance is None:
        return 0.0
    return math.sqrt(max(0.0, float(np.linalg.eigvalsh(pose.covariance[:2, :2])[-1])))


def value_of(answer: Answer, choices: tuple[str, ...] = (), origin_ns: int = 0) -> str:
    """The typed value of an answer, for large letters."""
    if answer.error_code != ErrorCode.NONE:
        return ERROR_WORDS.get(answer.error_code, answer.error_code.name)
    kind = answer.answer_type
    if answer.outcome == Outcome.NOT_OBSERVED:
        return "Not observed"
    if kind == AnswerType.BINARY:
        return "Yes" if answer.binary else "No"
    if kind == AnswerType.COUNT:
        return str(answer.count)
    if kind == AnswerType.DURATION:
        return seconds(answer.duration_s)
    if kind == AnswerType.CHOICE and 0 <= answer.choice_index < len(choices):
        return choices[answer.choice_index]
    if kind == AnswerType.TIME and answer.event is not None:
        return span(answer.event, origin_ns)
    if kind == AnswerType.POSITION and answer.pose is not None:
        x, y, _ = (float(v) for v in answer.pose.position)
        return f"x {x:.1f} m, y {y:.1f} m"
    return answer.text or "(no words)"


def pose_words(answer: Answer) -> str:
    """Whose position an answer gives; empty without one."""
    if answer.pose is None:
        return ""
    whose = "Where the thing is" if answer.pose_kind == PoseKind.OBJECT else "Where the robot was when it saw it"
    return f"{whose}: {place(answer.pose)}."


def stamp_of(text: str, start_ns: int, newest_ns: int, origin_ns: int = 0) -> int:
    """The stamp that a person typed: empty (0), a time of day such as 14:05:30, or seconds as `when` shows them.

    Raises:
        ValueError: it is none of these.
    """
    text = text.strip().removesuffix("s").strip()
    if not text:
        return 0
    if (found := CLOCK.fullmatch(text)) and newest_ns >= EPOCH_NS and not origin_ns:
        day = time.localtime(newest_ns // SECOND_NS)
        midnight_s = time.mktime((day.tm_year, day.tm_mon, day.tm_mday, 0, 0, 0, 0, 0, -1))
        hours, minutes, rest = int(found[1]), int(found[2]), float(found[3] or 0)
        if hours < 24 and minutes < 60 and rest < 60:
            stamp = round((midnight_s + 3600 * hours + 60 * minutes + rest) * SECOND_NS)
            return stamp if stamp <= newest_ns + 60 * SECOND_NS else stamp - 86_400 * SECOND_NS
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or not 0 <= value < 1e10:
        raise ValueError(f"{text!r} is no time; write 14:05:30, or seconds such as 12.5")
    # With a clock of the day, a number counts from the start of the memory.
    base_ns = origin_ns or (start_ns if newest_ns >= EPOCH_NS else 0)
    return base_ns + round(value * SECOND_NS)
