"""Oracle of question reading: what a question of the world asks is told, and not read from its words.

With it, answers from events show what is lost after a question was understood, and how much the question head loses.
"""

from __future__ import annotations

from collections.abc import Mapping

from salmonn_node.answering.event_answers import NAME, EventAnswers
from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.lab.training.question_texts import PLURALS
from salmonn_node.lab.world.objects import COLOURS, PERSON, SHAPES, Thing
from salmonn_node.lab.world.sounds import SOUNDS
from salmonn_node.model.event_parts import EventParts
from salmonn_node.model.question_head import QuestionReading
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.stream.answers import AnswerType

THINGS = {thing.name: thing for thing in (Thing(c, s) for c in COLOURS for s in (*SHAPES, PERSON))}
TITLES = {sound.title: name for name, sound in SOUNDS.items()}


class ToldQuestions(EventAnswers):
    """Answers from events that know what is asked.

    Attributes:
        record: the question that is asked next. Set it before each.
    """

    def __init__(self, model: VideoSalmonnS, parts: EventParts) -> None:
        super().__init__(model, parts)
        self.record: QuestionRecord | None = None

    def understood(self, text: str, kind: AnswerType | None = None) -> QuestionReading | None:
        """The form and slots of `record`, or, without a type, those of a bare name; None for other names."""
        if kind is not None:
            assert self.record is not None
            return QuestionReading(str(self.record.about["template"]), slots_of(self.record.about), 1.0)
        about = {"thing": text} if text in THINGS else {"sound": text} if text in TITLES else {}
        return QuestionReading(NAME, slots_of(about), 1.0) if about else None


def slots_of(about: Mapping[str, object]) -> dict[str, str]:
    """What fills the slots, from the words of a query of the world."""
    slots: dict[str, str] = {}
    if "thing" in about:
        thing = THINGS[str(about["thing"])]
        slots |= {"colour": thing.colour, "shape": thing.shape}
    if "sound" in about:
        slots["sound"] = TITLES[str(about["sound"])]
    if "shapes" in about:
        slots["shape"] = PLURALS[str(about["shapes"])]
    return slots | {name: str(about[name]) for name in ("shape", "room") if name in about}
