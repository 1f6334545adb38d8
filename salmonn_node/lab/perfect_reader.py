"""A perfect reader of the log as the script of the STUB server: it knows the world's truth, and reads no picture.

It names the lines of the log at which the evidence of a question lies, and answers from the truth, but only if a
picture that it was sent lies there. So what it cannot answer is what log and pictures do not hold. It is no model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from salmonn_node.answering.server_prompts import BOX_SCALE
from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.lab.stub_server import text_of
from salmonn_node.lab.world.oracle import Oracle
from salmonn_node.lab.world.truth import START_NS, Truth
from salmonn_node.stream.answers import Answer, Evidence, Outcome
from salmonn_node.stream.observations import SECOND_NS

LINE = re.compile(r"^(\d+) \| (\w+) \| (\S+) \| ([\d:]+)(?: to ([\d:]+))?", re.MULTILINE)
PICTURE = re.compile(r"^Picture(?: taken at the sound)? (\d+): (\w+), ([\d:]+)(?: to ([\d:]+))?", re.MULTILINE)
QUESTION = re.compile(r"The question, of type (\w+): (\"(?:[^\"\\]|\\.)*\")")
# The log gives whole seconds, and an event may seem a little longer or shorter than it was.
SLACK_S = 1.0


@dataclass(frozen=True)
class Line:
    """A line of the log or of a picture: its number, what it is, and from when to when in seconds."""

    number: int
    what: str
    first: float
    last: float


class PerfectReader:
    """Answers questions about one stream of the world.

    Args:
        truth: truth of the stream, which the log's times count from.
        records: the questions that may be asked, each with another text.
        most: most events that it names.
    """

    def __init__(self, truth: Truth, records: Sequence[QuestionRecord], most: int = 4) -> None:
        self._truth, self._oracle, self._most = truth, Oracle(truth), most
        self._records = {record.text: record for record in records}

    def __call__(self, request: dict[str, Any]) -> str:
        """The reply to a request."""
        text = text_of(request)
        asked = QUESTION.search(text)
        if asked is None:
            return "a picture of a flat"  # a caption
        record = self._records.get(json.loads(asked.group(2)))
        said = Answer(outcome=Outcome.NOT_OBSERVED) if record is None else self._oracle(record)
        if "The log:" in text:
            return json.dumps({"events": self.named(said.evidence, _lines(LINE, text)), "counted": []})
        return json.dumps(self._answered(record, said, _lines(PICTURE, text)))

    def named(self, evidence: Sequence[Evidence], lines: Sequence[Line]) -> list[int]:
        """Numbers of the lines at which pieces of evidence lie; for each piece the line that fits it best."""
        found = []
        for piece in evidence:
            fitting = [(fit, line.number) for line in lines if (fit := _fit(piece, line)) > 0]
            if fitting:
                found.append(max(fitting)[1])
        return list(dict.fromkeys(found))[: self._most]

    def _answered(self, record: QuestionRecord | None, said: Answer, shown: Sequence[Line]) -> dict[str, Any]:
        proving = [line for line in shown if any(_fit(piece, line) > 0 for piece in said.evidence)]
        if record is None or said.outcome != Outcome.ANSWERED or not proving:
            return {"observed": False, "text": "", "pictures": []}
        reply: dict[str, Any] = {"observed": True, "text": said.text, "pictures": [line.number for line in proving]}
        if record.answer_type == "BINARY":
            reply["value"] = said.binary
        elif record.answer_type == "COUNT":
            reply["value"] = said.count
        elif record.answer_type == "CHOICE":
            reply["value"] = record.choices[said.choice_index]
        elif record.about["template"] == "where_object":
            reply["box"] = self._box(str(record.about["thing"]), proving[0])
        return reply

    def _box(self, thing: str, line: Line) -> list[int] | None:
        """Where a thing is in the middle picture of a line."""
        moments = self._truth.moments[int(line.first) : int(line.last) + 1]
        if not moments:
            return None
        for seen in moments[len(moments) // 2].seen:
            if seen.thing.name == thing:
                left, top, right, bottom = (round(BOX_SCALE * value) for value in seen.box)
                return [left, top, max(right, left + 1), max(bottom, top + 1)]
        return None


def _fit(piece: Evidence, line: Line) -> float:
    """Overlap of evidence and line by their union, 0 where they are apart; a line of the other sense counts less."""
    first, last = ((stamp - START_NS) / SECOND_NS for stamp in (piece.interval.start_ns, piece.interval.end_ns))
    overlap = min(last, line.last) - max(first, line.first) + SLACK_S
    if overlap <= 0:
        return 0.0
    fit = overlap / (max(last, line.last) - min(first, line.first) + SLACK_S)
    return fit if (line.what == "sound") == (piece.modality == "audio") else fit / 100


def _lines(pattern: re.Pattern[str], text: str) -> list[Line]:
    """The lines of a log, or of pictures, in a text."""
    found = []
    for match in pattern.finditer(text):
        number, what, *rest = match.groups()
        first, last = rest[-2:]
        found.append(Line(int(number), what, _seconds(first), _seconds(last or first)))
    return found


def _seconds(clock: str) -> float:
    hours, minutes, seconds = (int(part) for part in clock.split(":"))
    return float(3600 * hours + 60 * minutes + seconds)
