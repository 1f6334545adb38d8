"""Check a question: the reason why it is invalid names the wrong field."""

from __future__ import annotations

import math
from collections.abc import Sequence

from salmonn_node.stream.answers import AnswerType, Question

MAX_TEXT_BYTES = 4096
MAX_CHOICES = 32
MAX_CHOICE_BYTES = 256
MAX_NAME_BYTES = 256
# Words that the prompt builder would take as the place of the memory.
PLACES = ("<video>", "<image>")


def plain(text: str) -> str:
    """Escape words that would mark the place of the memory in the prompt. The tokenizer escapes everything else."""
    for place in PLACES:
        text = text.replace(place, f"{place[0]} {place[1:]}")
    return text


def refusal(question: Question, sources: Sequence[str]) -> str:
    """The reason why `question` is invalid; "" when it is valid. `sources` are the names that the memory knows."""
    if not question.text.strip():
        return "text is empty"
    if _bytes(question.text) > MAX_TEXT_BYTES:
        return f"text is longer than {MAX_TEXT_BYTES} bytes"
    if question.answer_type not in list(AnswerType):
        return f"answer_type {question.answer_type!r} is unknown"
    if question.answer_type == AnswerType.CHOICE and not 2 <= len(question.choices) <= MAX_CHOICES:
        return f"choices: CHOICE needs 2 to {MAX_CHOICES} of them, got {len(question.choices)}"
    if any(not choice.strip() for choice in question.choices):
        return "choices: one of them is empty"
    if len({choice.strip() for choice in question.choices}) < len(question.choices):
        return "choices must differ from each other"
    if any(_bytes(choice) > MAX_CHOICE_BYTES for choice in question.choices):
        return f"choices: one of them is longer than {MAX_CHOICE_BYTES} bytes"
    if any(_bytes(name) > MAX_NAME_BYTES for name in (question.target_frame, *question.sources)):
        return f"target_frame and sources: a name is longer than {MAX_NAME_BYTES} bytes"
    if min(question.after_ns, question.before_ns) < 0:
        return "after and before must not be negative"
    if question.before_ns and question.after_ns > question.before_ns:
        return f"after ({question.after_ns} ns) is later than before ({question.before_ns} ns)"
    if not math.isfinite(question.timeout_s) or question.timeout_s < 0:
        return f"timeout must not be negative, got {question.timeout_s} s"
    if question.max_evidence < 0:
        return f"max_evidence must not be negative, got {question.max_evidence}"
    unknown = sorted(set(question.sources) - set(sources))
    if unknown:
        return f"sources: {', '.join(unknown)} unknown; known are {', '.join(sources) or 'none so far'}"
    return ""


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
