"""One question of an evaluation, as a line of JSON: what is asked when, what is expected, and on which evidence."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from salmonn_node.stream.answers import AnswerType, PoseKind, Question
from salmonn_node.stream.observations import SECOND_NS, Interval

# What a question is about; each is scored on its own.
KINDS = (
    "existence",
    "colour",
    "count",
    "where_robot",
    "where_object",
    "room",
    "when_first",
    "when_last",
    "how_long",
    "seen_when_heard",
    "what_was_said",
    "order",
    "state_now",
    "state_earlier",
    "change",
    "other",
)
AnswerTypeName = Literal["TEXT", "BINARY", "POSITION", "TIME", "DURATION", "COUNT", "CHOICE"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EvidenceInterval(_Strict):
    """A stretch of the stream that is enough to answer; both ends included, int nanoseconds of the stream's clock."""

    start_ns: int
    end_ns: int
    modality: Literal["vision", "audio"] = "vision"

    @model_validator(mode="after")
    def _ordered(self) -> EvidenceInterval:
        Interval(self.start_ns, self.end_ns)
        return self

    @property
    def interval(self) -> Interval:
        """The same as a plain interval."""
        return Interval(self.start_ns, self.end_ns)


class Expected(_Strict):
    """The right answer; only the fields that belong to the answer type are set.

    Attributes:
        text: the answer in words (TEXT, and a reading aid for every other type).
        accepted: further wordings that count as right.
        vocabulary: the words among which the answer lies; an answer that names two of them is wrong.
        binary: yes or no (BINARY).
        choice_index: index into the question's choices (CHOICE).
        count: how many (COUNT).
        position_m: x, y, z in `frame_id` (POSITION).
        pose_kind: whose position it is.
        event_start_ns, event_end_ns: when it happened (TIME, DURATION).
        duration_s: seconds (DURATION).
    """

    text: str = ""
    accepted: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = ()
    binary: bool | None = None
    choice_index: int | None = None
    count: int | None = None
    position_m: tuple[float, float, float] | None = None
    frame_id: str = "map"
    map_id: str = ""
    pose_kind: Literal["OBSERVER", "OBJECT"] = "OBSERVER"
    event_start_ns: int | None = None
    event_end_ns: int | None = None
    duration_s: float | None = None


class Tolerance(_Strict):
    """How far off an answer may be and still count as right; a duration may be off by the larger of its two."""

    position_m: float = Field(default=1.5, gt=0)
    time_s: float = Field(default=5.0, gt=0)
    duration_s: float = Field(default=2.0, gt=0)
    duration_fraction: float = Field(default=0.25, ge=0)


# What each answer type must be told to be scored, when the question is answerable.
_NEEDED = {
    "TEXT": "text",
    "BINARY": "binary",
    "POSITION": "position_m",
    "TIME": "event_start_ns",
    "DURATION": "duration_s",
    "COUNT": "count",
    "CHOICE": "choice_index",
}


class QuestionRecord(_Strict):
    """One line of a question file.

    Attributes:
        id: unique within a file.
        stream: name of the bag or stream it belongs to; empty where a file belongs to one bag.
        ask_ns: stream time at which it is asked; nothing later may be used.
        text: the question.
        kind: what it is about, one of KINDS.
        answer_type: the type asked for.
        choices: options of a CHOICE question, at least two.
        answerable: False when the stream holds no evidence; then the right answer is to abstain.
        expected: the right answer. Of unanswerable BINARY and COUNT questions, "no" and 0 count as abstaining too.
        tolerance: how far off is still right.
        evidence: alternatives, any one of which is enough, or pieces that are all needed; empty when unanswerable.
        needs_all: all pieces of the evidence are needed (which came first, how many, what changed).
        near_miss: what was there instead ("same shape, other colour"); empty when answerable.
        stream_s: length of the stream up to `ask_ns`, in seconds.
        phrasing: name of the template, "held_out:..." for templates kept out of training.
        pixels: the largest share of the image that the evidence filled, 0 where there is none to see.
        snr_db: signal to noise of the evidence's sound, None where there is none to hear.
        about: the query behind the words, for analysis; never shown to a model.
    """

    id: str
    stream: str = ""
    ask_ns: int = Field(gt=0)
    text: str = Field(min_length=1)
    kind: Literal[KINDS] = "other"  # type: ignore[valid-type]
    answer_type: AnswerTypeName = "TEXT"
    choices: tuple[str, ...] = ()
    answerable: bool = True
    expected: Expected = Expected()
    tolerance: Tolerance = Tolerance()
    evidence: tuple[EvidenceInterval, ...] = ()
    needs_all: bool = False
    near_miss: str = ""
    stream_s: float = 0.0
    phrasing: str = ""
    pixels: float = 0.0
    snr_db: float | None = None
    about: dict[str, str | int | float | bool] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _scorable(self) -> QuestionRecord:
        if self.answer_type == "CHOICE" and len(self.choices) < 2:
            raise ValueError("a CHOICE question needs at least two choices")
        index = self.expected.choice_index
        if index is not None and not 0 <= index < len(self.choices):
            raise ValueError(f"expected.choice_index={index} is outside the {len(self.choices)} choices")
        if self.answerable:
            needed = _NEEDED[self.answer_type]
            if getattr(self.expected, needed) in (None, ""):
                raise ValueError(f"an answerable {self.answer_type} question needs expected.{needed}")
        elif self.evidence:
            raise ValueError("an unanswerable question has no evidence")
        return self

    @property
    def evidence_age_s(self) -> float | None:
        """Seconds from the end of the evidence to the question; None when unanswerable.

        Of alternatives the youngest counts, of pieces that are all needed the oldest.
        """
        if not self.evidence:
            return None
        ends = [e.end_ns for e in self.evidence]
        return (self.ask_ns - (min(ends) if self.needs_all else max(ends))) / SECOND_NS

    def question(self) -> Question:
        """As a planner would ask it, limited to what had been observed by `ask_ns`."""
        return Question(
            text=self.text,
            answer_type=AnswerType[self.answer_type],
            choices=self.choices,
            before_ns=self.ask_ns,
        )

    @property
    def pose_kind(self) -> PoseKind:
        """Whose position is expected."""
        return PoseKind[self.expected.pose_kind]


class QuestionFileError(ValueError):
    """A line of a question file that is not a question; the message names file and line."""


def write_questions(path: Path, records: Iterable[QuestionRecord]) -> int:
    """Write records as JSON lines, fields in a fixed order, defaults left out; returns how many."""
    count = 0
    with Path(path).open("w", encoding="utf-8") as out:
        for record in records:
            out.write(record.model_dump_json(exclude_defaults=True) + "\n")
            count += 1
    return count


def parse_questions(lines: Iterable[str], name: str = "questions") -> Iterator[QuestionRecord | QuestionFileError]:
    """Read JSON lines; a bad line is yielded as an error that names it, so that the rest can still be used."""
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = QuestionRecord.model_validate(json.loads(line))
            if record.id in seen:
                raise ValueError(f"id {record.id!r} was used on line {seen[record.id]} already")
        except json.JSONDecodeError as error:
            yield QuestionFileError(f"{name}:{number}: not JSON: {error}")
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            yield QuestionFileError(f"{name}:{number}: {where or 'question'}: {first['msg']}")
        except ValueError as error:
            yield QuestionFileError(f"{name}:{number}: {error}")
        else:
            seen[record.id] = number
            yield record


def usable_questions(path: Path) -> tuple[list[QuestionRecord], list[str]]:
    """The questions of a file and, for each line that is none, why not.

    Raises:
        OSError: the file cannot be read.
        ValueError: no line is a question.
    """
    questions, faults = [], []
    with path.open(encoding="utf-8") as lines:
        for item in parse_questions(lines, str(path)):
            if isinstance(item, QuestionFileError):
                faults.append(str(item))
            else:
                questions.append(item)
    if not questions:
        raise ValueError(f"{path} holds no question" + (f"; the first fault: {faults[0]}" if faults else ""))
    return questions, faults


def read_questions(path: Path) -> list[QuestionRecord]:
    """Read a whole file.

    Raises:
        QuestionFileError: at the first bad line.
    """
    with Path(path).open(encoding="utf-8") as lines:
        records = []
        for item in parse_questions(lines, str(path)):
            if isinstance(item, QuestionFileError):
                raise item
            records.append(item)
        return records
