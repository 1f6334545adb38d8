"""Question file: one question per JSON line, with the time of asking, the expected answer and its evidence."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from salmonn_node.stream.answers import AnswerType, PoseKind, Question
from salmonn_node.stream.observations import SECOND_NS, Interval

# Kinds of questions. Each is also scored on its own.
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
    """A span of the stream that is enough to answer, both ends included, in nanoseconds of the stream's clock."""

    start_ns: int
    end_ns: int
    modality: Literal["vision", "audio"] = "vision"

    @model_validator(mode="after")
    def _ordered(self) -> EvidenceInterval:
        Interval(self.start_ns, self.end_ns)
        return self

    @property
    def interval(self) -> Interval:
        """Return it as a plain interval."""
        return Interval(self.start_ns, self.end_ns)


class Expected(_Strict):
    """The right answer. Only the fields of the answer type are set.

    Attributes:
        text: the answer in words (TEXT). For other types, a hint for readers.
        accepted: other wordings that count as right.
        vocabulary: all possible words for the answer. An answer that names two of them is wrong.
        binary: yes or no (BINARY).
        choice_index: index into the question's choices (CHOICE).
        count: how many (COUNT).
        position_m: x, y, z in `frame_id` (POSITION).
        pose_kind: whose position is expected.
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
    """Maximum error of a right answer. A duration may differ by the larger of its two tolerances."""

    position_m: float = Field(default=1.5, gt=0)
    time_s: float = Field(default=5.0, gt=0)
    duration_s: float = Field(default=2.0, gt=0)
    duration_fraction: float = Field(default=0.25, ge=0)


# Fields of `expected` that an answerable question of each answer type needs to be scored.
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
        stream: name of its bag or stream. Empty if the whole file belongs to one bag.
        ask_ns: stream time at which it is asked. The answer may not use anything later.
        text: the question.
        kind: what the question is about, one of KINDS.
        answer_type: requested answer type.
        choices: options of a CHOICE question, at least two.
        answerable: False if the stream holds no evidence. The right answer is then to abstain.
        expected: the right answer. Of unanswerable BINARY and COUNT questions, "no" and 0 count as abstaining too.
        tolerance: maximum error of a right answer.
        evidence: pieces of evidence, of which any one is enough unless `needs_all`. Empty if unanswerable.
        needs_all: all pieces of evidence are needed (which came first, how many, what changed).
        near_miss: what was there instead ("same shape, other colour"). Empty if answerable.
        stream_s: length of the stream up to `ask_ns`, in seconds.
        phrasing: name of the template, "held_out:..." for templates that training does not use.
        pixels: largest share of the image filled by the evidence, 0 if nothing is visible.
        snr_db: signal-to-noise ratio of the evidence's sound, None if nothing is audible.
        about: the query behind the words, for analysis. Never shown to a model.
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
        """Seconds from the end of the evidence to the question. None if unanswerable.

        The newest piece counts, or the oldest one if all pieces are needed.
        """
        if not self.evidence:
            return None
        ends = [e.end_ns for e in self.evidence]
        return (self.ask_ns - (min(ends) if self.needs_all else max(ends))) / SECOND_NS

    def question(self, *, limited: bool = True) -> Question:
        """Return the question as a planner would ask it, limited to observations up to `ask_ns`, or to none."""
        return Question(
            text=self.text,
            answer_type=AnswerType[self.answer_type],
            choices=self.choices,
            before_ns=self.ask_ns if limited else 0,
        )

    @property
    def pose_kind(self) -> PoseKind:
        """Whose position is expected."""
        return PoseKind[self.expected.pose_kind]


class QuestionFileError(ValueError):
    """A line of a question file is not a question. The message names file and line."""


def write_questions(path: Path, records: Iterable[QuestionRecord]) -> int:
    """Write records as JSON lines, with fields in a fixed order and without defaults. Return how many."""
    count = 0
    with Path(path).open("w", encoding="utf-8") as out:
        for record in records:
            out.write(record.model_dump_json(exclude_defaults=True) + "\n")
            count += 1
    return count


def parse_questions(lines: Iterable[str], name: str = "questions") -> Iterator[QuestionRecord | QuestionFileError]:
    """Read JSON lines. A bad line is yielded as an error that names it, so you can still use the others."""
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
    """Return the questions of a file, and an error message for each bad line.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file has no valid question.
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
