"""Typed answers: fills the fields of the answer type from the network's output, with the raw probability."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from salmonn_node.answering.grammar import read_count, read_seconds
from salmonn_node.model.generation import Generation
from salmonn_node.stream.answers import Answer, AnswerType, Evidence, PoseKind, Question
from salmonn_node.stream.observations import SECOND_NS, Pose

# A time written by the network belongs to the evidence that covers it or misses it by at most one temporal patch.
NEAR_NS = 2 * SECOND_NS
YES_NO = ("yes", "no")
_WORDS = re.compile(r"[a-z']+")
_AUXILIARIES = (
    "is are was were am do does did has have had can could will would should may isn't aren't wasn't weren't "
    "don't doesn't didn't hasn't haven't hadn't can't couldn't won't"
)
_POLAR = frozenset(_AUXILIARIES.split())
_LEADS = (
    (("how", "many"), AnswerType.COUNT),
    (("how", "long"), AnswerType.DURATION),
    (("for", "how", "long"), AnswerType.DURATION),
    (("where",), AnswerType.POSITION),
    (("when",), AnswerType.TIME),
    (("at", "what", "time"), AnswerType.TIME),
    (("what", "time"), AnswerType.TIME),
)
# Questions for the robot's own place: "where were you", "where did you stand", "from which position did you see", ...
_OBSERVER = re.compile(
    r"\b(were|was|are|am|is) (you|we|i|the robot(?=\s*([^\w\s]|$|when|while|then|now|at|last)))\b"
    r"|\bdid (you|we|i|the robot) (?!.*\b(see|notice|spot|find|leave|put)\b)"
    r"|\b(your|our|my|the robot's)( own)? (position|place|location|pose)\b"
    r"|\bfrom (where|which|what)\b"
)


@dataclass(frozen=True)
class Typed:
    """An answer with the fields of its type, and the network's uncalibrated probability for them."""

    answer: Answer
    probability: float


def kind_of(question: Question) -> AnswerType:
    """The type of the answer: the requested one, or for ANY a type chosen from the first words of the question.

    "how many" gives COUNT, "how long" DURATION, "where" POSITION, "when" and "what time" TIME. An auxiliary verb ("is",
    "did", ...) gives BINARY, unless the question contains "or". Everything else gives TEXT. Only English is supported.
    """
    if question.answer_type != AnswerType.ANY:
        return question.answer_type
    words = tuple(_WORDS.findall(question.text.lower().replace("\u2019", "'")))
    for lead, kind in _LEADS:
        if words[: len(lead)] == lead:
            return kind
    if words and words[0] in _POLAR and "or" not in words:
        return AnswerType.BINARY
    return AnswerType.TEXT


def about_observer(text: str) -> bool:
    """Whether a "where" question asks for the robot's own place, not that of an object. Only English is supported."""
    return _OBSERVER.search(text.lower()) is not None


def options_of(kind: AnswerType, question: Question, yes_no: tuple[str, str]) -> tuple[str, ...]:
    """The options that the network chooses from; empty for other types. `yes_no` is how it writes yes and no."""
    return {AnswerType.BINARY: yes_no, AnswerType.CHOICE: question.choices}.get(kind, ())


def no_object(_: Evidence) -> Pose | None:
    """The default for `object_pose`: without cameras, no object has a position."""
    return None


def typed(
    kind: AnswerType,
    answer: Answer,
    generation: Generation,
    object_pose: Callable[[Evidence], Pose | None] = no_object,
    frame_ns: int = 0,
    options: Sequence[str] = YES_NO,
) -> Typed:
    """Fill the fields of the answer type.

    - BINARY and CHOICE: the option with the higher probability per token.
    - COUNT: the value that the network wrote within the grammar.
    - TIME and DURATION with an evidence head: those of the strongest evidence.
    - TIME without an evidence head: that of the evidence that covers the written time, otherwise of the strongest.
    - DURATION without an evidence head: the written value.
    - POSITION: that of the object in the strongest evidence with a pose; if unknown, that of the robot there.

    Args:
        kind: type of the answer.
        answer: an answer with text and evidence.
        generation: the network's output.
        object_pose: returns the position of the object in a piece of evidence, or None.
        frame_ns: how long the last frame of visual evidence lasts, nanoseconds.
        options: texts for BINARY or CHOICE, in the order of `generation.option_logprobs`.

    Raises:
        ValueError: the network's output lacks what the type needs.
    """
    evidence = answer.evidence
    answer = replace(answer, answer_type=kind, event=evidence[0].interval if evidence else None)
    grounded = (evidence[0].score if evidence else 0.0) * (1 - (generation.null_weight or 0.0))
    if kind in (AnswerType.BINARY, AnswerType.CHOICE):
        if generation.option_logprobs is None:
            raise ValueError("the network compared no options")
        shares = torch.softmax(generation.option_logprobs.double(), dim=0)
        best = int(shares.argmax())
        answer = replace(answer, text=options[best])
        chosen = {"binary": best == 0} if kind == AnswerType.BINARY else {"choice_index": best}
        return Typed(replace(answer, **chosen), float(shares[best]))
    if kind == AnswerType.POSITION:
        first = next((e for e in evidence if e.pose is not None), None)
        if first is None or first.pose is None:
            return Typed(answer, math.nan)
        place = object_pose(first)
        whose = PoseKind.OBSERVER if place is None else PoseKind.OBJECT
        answer = replace(answer, pose=place or first.pose, pose_kind=whose, map_id=first.pose.map_id)
        return Typed(answer, grounded * first.score / evidence[0].score)
    if kind in (AnswerType.TIME, AnswerType.DURATION) and generation.pointer is not None:
        # The evidence head was trained to point. It is more accurate than what the network writes about times.
        if answer.event is None:
            return Typed(answer, math.nan)
        if kind == AnswerType.TIME:
            seconds = (answer.event.start_ns - answer.memory_start_ns) / SECOND_NS
            return Typed(replace(answer, text=f"{answer.text} {seconds:.0f} seconds after the start".strip()), grounded)
        lasted = answer.event.end_ns - answer.event.start_ns + (frame_ns if evidence[0].modality == "vision" else 0)
        seconds = lasted / SECOND_NS
        return Typed(replace(answer, text=f"{seconds:.0f} seconds", duration_s=seconds), grounded)
    if kind == AnswerType.TEXT:
        words = generation.token_logprobs
        return Typed(answer, math.exp(sum(words) / len(words)) if words else math.nan)
    if generation.value is None:
        raise ValueError("the network wrote no value")
    if kind == AnswerType.COUNT:
        return Typed(replace(answer, count=read_count(generation.value)), math.exp(generation.value_logprob))
    seconds = read_seconds(generation.value)
    if kind == AnswerType.DURATION:
        return Typed(replace(answer, duration_s=seconds), math.exp(generation.value_logprob))
    chosen_piece = _at(evidence, answer.memory_start_ns + round(seconds * SECOND_NS))
    if chosen_piece is None:
        return Typed(answer, grounded)
    return Typed(replace(answer, event=chosen_piece.interval), grounded * chosen_piece.score / evidence[0].score)


def _at(evidence: tuple[Evidence, ...], stamp_ns: int) -> Evidence | None:
    """The strongest piece of evidence that covers a stamp to within NEAR_NS, or None."""
    for piece in evidence:
        if piece.interval.start_ns - NEAR_NS <= stamp_ns <= piece.interval.end_ns + NEAR_NS:
            return piece
    return None
