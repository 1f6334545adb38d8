"""Answers from events: reads what a question asks, then the event memory; the rest is left to the network.

The question head must be sure of the form and of what fills its slots, the form must suit the type of the answer, and
the checkpoint's vocabulary must know the words. Otherwise the language model answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from salmonn_node.answering.confidence import Calibration, scaled
from salmonn_node.answering.event_evidence import evidence_of_events
from salmonn_node.answering.event_forms import FORMS, ORDER, forms_of
from salmonn_node.answering.event_reader import EventReading, Finding
from salmonn_node.answering.evidence import PictureSize
from salmonn_node.answering.grounding import Grounding
from salmonn_node.answering.known_words import known_share
from salmonn_node.answering.request import plain
from salmonn_node.memory.event_memory import EventMemory
from salmonn_node.memory.events import Event
from salmonn_node.memory.evidence_index import EvidenceIndex
from salmonn_node.memory.memory_view import MemoryView
from salmonn_node.model.event_parts import EventParts
from salmonn_node.model.question_head import QuestionReading
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.stream.answers import Answer, AnswerType, Outcome, PoseKind, Question
from salmonn_node.stream.observations import SECOND_NS

UNDERSTOOD = 0.8  # the question head must be this sure
KNOWN_WORDS = 0.5  # share of the question's words that the vocabulary must know, as for confidences
NAME = "name"  # the form of a bare name, as in a choice
NOT_OBSERVED = "not observed"


class EventAnswers:
    """Answers from events of one network.

    Args:
        model: the network, for its language model and tokenizer.
        parts: what answers from events need.
    """

    def __init__(self, model: VideoSalmonnS, parts: EventParts) -> None:
        self.model, self.parts = model, parts

    def understood(self, text: str, kind: AnswerType | None = None) -> QuestionReading | None:
        """What a text asks, given the type of the answer, or names, without one.

        None where the head is not sure enough or too many words are unknown.
        """
        tokenizer = self.model.tokenizer
        if known_share(tokenizer, text) < KNOWN_WORDS:
            return None
        ids = tokenizer.encode(tokenizer.escape(plain(text)))
        forms = None if kind is None else forms_of(kind)
        read = self.parts.questions.read(self.model.network.language, ids, forms)
        return read if read.probability >= UNDERSTOOD else None

    def answer(
        self,
        question: Question,
        kind: AnswerType,
        view: MemoryView,
        blank: Answer,
        index: EvidenceIndex,
        *,
        limit: int,
        grounding: Grounding | None = None,
        picture_size: PictureSize = lambda source: None,
        calibration: Calibration | None = None,
    ) -> Answer | None:
        """Answer from the events of a view; None where the network must answer.

        Args:
            question: the question.
            kind: type of the answer.
            view: what was read, with its events.
            blank: the answer to fill.
            index: poses and pictures of moments.
            limit: most pieces of evidence.
            grounding: computes positions of objects; None: the robot's own place stands for them.
            picture_size: as that of `evidence_of_events`.
            calibration: without one, there is no confidence.
        """
        if view.events is None or view.events.partial:
            return None
        if _inside(question, view, view.events) is None:
            return None
        asked = self.understood(question.text, kind)
        read = None if asked is None else self._how(asked, question, kind)
        events = None if read is None else view.told()
        if read is None or events is None or (inside := _inside(question, view, events)) is None:
            return None
        now_ns = min(question.before_ns or view.newest_ns, view.newest_ns)
        reading = read(EventReading(self.parts.names, *inside, now_ns))
        probability = reading.probability
        confidence = math.nan if calibration is None else self.confidence(kind, probability)
        answer = replace(blank, answer_type=kind, confidence=confidence)
        if not reading.events:
            if not any(view.counters.get(name, 0) for name in ("visual_left", "audio_left")):
                return None  # the network still sees all that was seen and heard, also what made no event
            return replace(answer, outcome=Outcome.NOT_OBSERVED, text=NOT_OBSERVED, confidence=math.nan)
        # Where the robot was is asked of the event as a whole; all else rests on the sharpest picture and its box.
        whole = kind == AnswerType.POSITION and not reading.of_object
        evidence = evidence_of_events(
            reading.events, view, index, limit=limit, pictures=question.want_thumbnails, picture_size=picture_size,
            sharpest=not whole,
        )  # fmt: skip
        text = question.choices[reading.choice] if kind == AnswerType.CHOICE else reading.text
        answer = replace(
            answer, outcome=Outcome.ANSWERED, text=text, evidence=evidence, event=evidence[0].interval,
            binary=reading.binary, count=reading.count, choice_index=reading.choice, duration_s=reading.duration_s,
        )  # fmt: skip
        if kind == AnswerType.TIME:
            seconds = (evidence[0].interval.start_ns - answer.memory_start_ns) / SECOND_NS
            return replace(answer, text=f"{seconds:.0f} seconds after the start")
        if kind == AnswerType.POSITION and evidence[0].pose is not None:
            place = grounding.object_pose(evidence[0]) if grounding is not None and reading.of_object else None
            whose, pose = (PoseKind.OBSERVER, evidence[0].pose) if place is None else (PoseKind.OBJECT, place)
            x, y = (float(v) for v in pose.position[:2])
            text = f"x {x:.1f} m, y {y:.1f} m in {pose.frame_id}"
            return replace(answer, text=text, pose=pose, pose_kind=whose, map_id=pose.map_id)
        return answer

    def _how(
        self, asked: QuestionReading, question: Question, kind: AnswerType
    ) -> Callable[[EventReading], Finding] | None:
        """How events are read for what is asked; None where the network must answer."""
        if asked.form in ORDER and kind == AnswerType.CHOICE and len(question.choices) == 2:
            named = [self.understood(choice) for choice in question.choices]
            slots = [n.slots for n in named if n is not None and n.form == NAME]
            if len(slots) < 2 or any(set(s) != set(ORDER[asked.form]) for s in slots):
                return None
            return lambda events: events.order(*slots)
        form = FORMS.get(asked.form)
        if form is None or form.answer != kind or set(form.slots) != set(asked.slots):
            return None
        return lambda events: form.read(events, asked.slots)

    def confidence(self, kind: AnswerType, probability: float) -> float:
        """Calibrated probability that an answer of this type from events is right."""
        temperature = self.parts.names.temperature.get(kind.name)
        if temperature is None:
            return math.nan
        return float(scaled(np.array([probability]), temperature)[0])


def _inside(question: Question, view: MemoryView, events: EventMemory) -> tuple[list[Event], list[Event]] | None:
    """Sights and sounds that the question may see; None where dropped events may be missing from its window."""
    sights, sounds = events.events("visual"), events.events("audio")
    until = question.before_ns or view.newest_ns
    # A window that ends after everything, as that of "now", leaves nothing out.
    whole = all(e.last_ns <= until for e in (*sights, *sounds))
    if whole and not (question.after_ns or question.sources):
        return sights, sounds
    if any(events.dropped.values()):
        return None
    wanted = {view.sources.index(name) for name in question.sources if name in view.sources}

    def mine(listed: list[Event]) -> list[Event]:
        return [
            e for e in listed
            if e.last_ns >= question.after_ns and e.first_ns <= until and (not question.sources or e.source in wanted)
        ]  # fmt: skip

    return mine(sights), mine(sounds)
