"""Import NaVQA, ReMEmbR's questions about CODa drives, as a question file. You need the data; we do not ship any.

The importer reads two files. `data.csv` has question, type, clock time of the evidence, and parsable answer. Each
sequence has a `qa_unfilled.json` with the start and end of each question's span, in seconds since the epoch. The clock
times in the CSV have no time zone. They match the epochs in US Pacific time, so this is the default. Positions are
those of the robot at the evidence, so POSITION questions need the poses of the bag.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

from salmonn_node.evaluation.questions import AnswerTypeName, EvidenceInterval, Expected, QuestionRecord, Tolerance
from salmonn_node.stream.observations import SECOND_NS

# The evidence is a clock time with a resolution of one second. ReMEmbR itself works in segments of three seconds.
_HALF_SEGMENT_NS = 3 * SECOND_NS // 2
_MINUTE_S = 60.0


@dataclass
class NaVQAImport:
    """Imported questions, and the number of skipped ones by reason."""

    records: list[QuestionRecord] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


def import_navqa(
    table: Path,
    stretches: Path,
    sequence: int,
    *,
    stream: str = "",
    time_zone: str = "America/Los_Angeles",
    position_at: Callable[[int], tuple[float, float, float] | None] | None = None,
) -> NaVQAImport:
    """Import the questions of one sequence.

    Args:
        table: path of data.csv.
        stretches: path of that sequence's qa_unfilled.json.
        sequence: the "Seq ID" in the CSV.
        stream: name of the bag of the questions.
        time_zone: time zone of the clock times in the CSV.
        position_at: returns the robot's position (m) at a stamp (ns). Without it, POSITION questions are skipped.

    Raises:
        ValueError: a file lacks columns or fields of NaVQA.
    """
    spans = {item["id"]: item for item in _json_data(stretches)}
    result = NaVQAImport()
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        # The published header has line breaks inside column names.
        names = {" ".join(name.split()).split(" (")[0].lower(): name for name in reader.fieldnames or ()}
        wanted = ("uuid", "seq id", "question", "timestamp with answer", "type", "text answer", "parsable answer")
        missing = [name for name in wanted if name not in names]
        if missing:
            raise ValueError(f"{table}: not NaVQA's table, it lacks the columns: {', '.join(missing)}")
        for raw in reader:
            row = {name: (raw[names[name]] or "").strip() for name in wanted}
            if row["seq id"] != str(sequence) or not row["question"]:
                continue
            span = spans.get(row["uuid"])
            if span is None:
                result.skipped["no stretch of time for this id"] += 1
                continue
            record = _record(row, span, stream, ZoneInfo(time_zone), position_at)
            if isinstance(record, str):
                result.skipped[record] += 1
            else:
                result.records.append(record)
    return result


def _json_data(path: Path) -> list[dict[str, Any]]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        raise ValueError(f"{path}: not NaVQA's qa_unfilled.json, it has no list 'data'")
    return content["data"]


def _record(
    row: dict[str, str],
    span: dict[str, Any],
    stream: str,
    zone: ZoneInfo,
    position_at: Callable[[int], tuple[float, float, float] | None] | None,
) -> QuestionRecord | str:
    """Return one question, or the reason why it cannot be scored."""
    start_ns, ask_ns = (round(float(span[key]) * SECOND_NS) for key in ("start_time", "end_time"))
    try:
        times = [_stamp_ns(text, start_ns, zone) for text in row["timestamp with answer"].split(",") if text.strip()]
    except ValueError:
        return "the evidence's clock time cannot be read"
    if not times:
        return "no clock time of the evidence"
    kind = row["type"].lower()
    tolerance = Tolerance()
    if kind == "binary":
        word = row["parsable answer"].lower()
        if word not in ("yes", "no"):
            return "a binary question whose answer is neither yes nor no"
        expected = Expected(text=word, binary=word == "yes")
    elif kind == "text":
        expected = Expected(text=row["text answer"])
    elif kind == "time":
        expected = Expected(event_start_ns=times[0], event_end_ns=times[-1])
        # ReMEmbR accepts times within half a minute.
        tolerance = Tolerance(time_s=30.0)
    elif kind == "duration":
        try:
            expected = Expected(duration_s=float(row["parsable answer"]) * _MINUTE_S)
        except ValueError:
            return "a duration that is no number"
        tolerance = Tolerance(duration_s=30.0)
    elif kind == "position":
        position = position_at(times[0]) if position_at else None
        if position is None:
            return "no pose of the robot at the evidence"
        expected = Expected(position_m=position)
        # ReMEmbR accepts positions within 15 m.
        tolerance = Tolerance(position_m=15.0)
    else:
        return f"unknown type {kind!r}"
    if kind == "text" and not expected.text:
        return "a text question without an answer"
    evidence = EvidenceInterval(start_ns=min(times) - _HALF_SEGMENT_NS, end_ns=max(times) + _HALF_SEGMENT_NS)
    return QuestionRecord(
        id=row["uuid"],
        stream=stream,
        ask_ns=ask_ns,
        text=row["question"],
        answer_type=cast(AnswerTypeName, kind.upper()),
        expected=expected,
        tolerance=tolerance,
        evidence=(evidence,),
        stream_s=(ask_ns - start_ns) / SECOND_NS,
    )


def _stamp_ns(clock: str, day_ns: int, zone: ZoneInfo) -> int:
    """Return the stamp of a clock time on the day of another stamp."""
    day = datetime.fromtimestamp(day_ns / SECOND_NS, zone)
    hour, minute, second = (int(part) for part in clock.strip().split(":"))
    return round(day.replace(hour=hour, minute=minute, second=second, microsecond=0).timestamp()) * SECOND_NS
