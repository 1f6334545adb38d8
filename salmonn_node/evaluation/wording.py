"""Answers and expected answers in a few words, with times since the start of the stream."""

from __future__ import annotations

from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.stream.answers import Answer, AnswerType, Outcome
from salmonn_node.stream.observations import SECOND_NS


def answer_text(answer: Answer, record: QuestionRecord, start_ns: int) -> str:
    """Describe the typed answer in a few words. Times count from the start of the stream."""
    if answer.error_code:
        return f"{answer.error_code.name}: {answer.error_msg}"
    if answer.outcome != Outcome.ANSWERED:
        return answer.outcome.name.replace("_", " ").lower()
    kind = answer.answer_type
    if kind == AnswerType.BINARY:
        return "yes" if answer.binary else "no"
    if kind == AnswerType.COUNT:
        return str(answer.count)
    if kind == AnswerType.CHOICE:
        return record.choices[answer.choice_index] if 0 <= answer.choice_index < len(record.choices) else "no choice"
    if kind == AnswerType.DURATION:
        return f"{answer.duration_s:.1f} s"
    if kind == AnswerType.TIME:
        return span(answer.event.start_ns, answer.event.end_ns, start_ns) if answer.event else "no time"
    if kind == AnswerType.POSITION:
        if answer.pose is None:
            return "no position"
        x, y = answer.pose.position[:2]
        return f"({x:.2f}, {y:.2f}) m in {answer.pose.frame_id}, {answer.pose_kind.name.lower()}"
    return answer.text


def expected_text(record: QuestionRecord, start_ns: int) -> str:
    """Describe the right answer in a few words."""
    expected = record.expected
    if not record.answerable:
        return "not observed"
    if expected.position_m is not None:
        x, y = expected.position_m[:2]
        return f"({x:.2f}, {y:.2f}) m in {expected.frame_id}, {expected.pose_kind.lower()}"
    if record.answer_type == "TIME" and expected.event_start_ns is not None:
        return span(expected.event_start_ns, expected.event_end_ns or expected.event_start_ns, start_ns)
    if record.answer_type == "DURATION":
        return f"{expected.duration_s:.1f} s"
    if record.answer_type == "COUNT":
        return str(expected.count)
    if record.answer_type == "BINARY":
        return "yes" if expected.binary else "no"
    if record.answer_type == "CHOICE" and expected.choice_index is not None:
        return record.choices[expected.choice_index]
    return expected.text


def clock(stamp_ns: int, start_ns: int) -> str:
    """Format a stamp as h:mm:ss since the start of the stream."""
    seconds = round((stamp_ns - start_ns) / SECOND_NS)
    sign = "-" if seconds < 0 else ""
    seconds = abs(seconds)
    return f"{sign}{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def span(first_ns: int, last_ns: int, start_ns: int) -> str:
    """Format two stamps as h:mm:ss since the start of the stream, or one if they are the same second."""
    first, last = clock(first_ns, start_ns), clock(last_ns, start_ns)
    return first if first == last else f"{first} to {last}"
