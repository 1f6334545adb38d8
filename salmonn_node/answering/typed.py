"""From generated text and evidence to the fields of the answer type that was asked for."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from salmonn_node.stream.answers import Answer, AnswerType, PoseKind, Question

if TYPE_CHECKING:
    from salmonn_node.memory.memory_view import MemoryView
    from salmonn_node.model.video_salmonn_s import VideoSalmonnS

YES_NO = ("yes", "no")
_NUMBER = re.compile(r"\d{1,9}")


def kind_of(question: Question) -> AnswerType:
    """The type in which a question is answered: the one asked for, TEXT for ANY."""
    return AnswerType.TEXT if question.answer_type == AnswerType.ANY else question.answer_type


def typed(question: Question, answer: Answer, model: VideoSalmonnS, view: MemoryView) -> Answer:
    """`answer`, which has text and evidence, with the fields of its type filled.

    Yes or no, and a choice, are the option that the network finds likelier. A position is the robot's own at the
    strongest evidence, a time that evidence's interval, a duration its length. A count is the first number in the text.
    """
    kind = kind_of(question)
    answer = replace(answer, answer_type=kind, event=answer.evidence[0].interval if answer.evidence else None)
    if kind == AnswerType.BINARY:
        return replace(answer, binary=_likeliest(question, YES_NO, model, view) == 0)
    if kind == AnswerType.CHOICE:
        return replace(answer, choice_index=_likeliest(question, question.choices, model, view))
    if kind == AnswerType.POSITION:
        place = next((e.pose for e in answer.evidence if e.pose is not None), None)
        return replace(answer, pose=place, pose_kind=PoseKind.OBSERVER, map_id=place.map_id if place else "")
    if kind == AnswerType.DURATION:
        return replace(answer, duration_s=answer.event.duration_s if answer.event else 0.0)
    if kind == AnswerType.COUNT:
        number = _NUMBER.search(answer.text)
        return replace(answer, count=int(number.group()) if number else 0)
    return answer


def _likeliest(question: Question, options: tuple[str, ...], model: VideoSalmonnS, view: MemoryView) -> int:
    return int(model.score(question.text, options, view).argmax())
