"""From what the network gave to the fields of the answer type, and the raw probability of what they say."""

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

# A time that the network names is that of the evidence it falls into, or misses by no more than a temporal patch.
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
# Whose place is meant: "where were you", "where did you stand", "from which position did you see", "your position".
_OBSERVER = re.compile(
    r"\b(were|was|are|am|is) (you|we|i|the robot(?=\s*([^\w\s]|$|when|while|then|now|at|last)))\b"
    r"|\bdid (you|we|i|the robot) (?!.*\b(see|notice|spot|find|leave|put)\b)"
    r"|\b(your|our|my|the robot's)( own)? (position|place|location|pose)\b"
    r"|\bfrom (where|which|what)\b"
)


@dataclass(frozen=True)
class Typed:
    """An answer with the fields of its type, and the uncalibrated probability that the network gives them."""

    answer: Answer
    probability: float


def kind_of(question: Question) -> AnswerType:
    """The type in which a question is answered: the one asked for; for ANY, what its first words ask for.

    "how many" COUNT, "how long" DURATION, "where" POSITION, "when" and "what time" TIME, an auxiliary verb ("is",
    "did", ...) BINARY unless the question offers an "or", everything else TEXT. Only English is known.
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
    """Whether a question for a place asks where the robot was, and not where a thing is. Only English is known."""
    return _OBSERVER.search(text.lower()) is not None


def options_of(kind: AnswerType, question: Question, yes_no: tuple[str, str]) -> tuple[str, ...]:
    """What the network chooses among, empty when the type is no choice; `yes_no` is how it writes yes and no."""
    return {AnswerType.BINARY: yes_no, AnswerType.CHOICE: question.choices}.get(kind, ())


def no_object(_: Evidence) -> Pose | None:
    """Where nothing is known of cameras, an object has no place of its own."""
    return None


def typed(
    kind: AnswerType,
    answer: Answer,
    generation: Generation,
    object_pose: Callable[[Evidence], Pose | None] = no_object,
    frame_ns: int = 0,
    options: Sequence[str] = YES_NO,
) -> Typed:
    """`answer`, which has text and evidence, with the fields of its type filled.

    Yes or no, and a choice, are the option that is likelier per token, and `text` is that one of `options`. A count is
    the value that the network wrote within the grammar. Time and duration are those of the strongest evidence where an
    evidence head points at it, the last frame lasting `frame_ns` until the next one; otherwise what the network wrote,
    a time being that of the evidence into which it falls, or again of the strongest. A position is that of the object
    at the strongest evidence that has a pose, and the robot's own there where `object_pose` gives none.

    Raises:
        ValueError: the network did not give what the type needs.
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
        # The evidence head was trained to point; what a network writes about times and lengths trails it.
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
    """The strongest piece of evidence that covers a stamp, or nearly does."""
    for piece in evidence:
        if piece.interval.start_ns - NEAR_NS <= stamp_ns <= piece.interval.end_ns + NEAR_NS:
            return piece
    return None
