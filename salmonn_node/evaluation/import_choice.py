"""Import multiple-choice video benchmarks as question files. You need the data; we do not ship any.

There are three layouts:

* `video-mme`: one row per question with `videoID` (or `video_id`), `question_id`, `question`, `options`, `answer`.
* `lvbench`: one row per video with `key` and `qa`, a list of `uid`, `question` (the options follow as lines
  `(A) ...`), `answer`, `time_reference` (`MM:SS-MM:SS`).
* `plain`: one row per question with `video`, `question`, `options`, `answer`, and optionally `id`, `start_s`, `end_s`.
  Use it for benchmarks without their own layout here, such as ELViM.

A question is asked at the end of its video. `ask_ns` comes from the duration that the caller gives for the video.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from salmonn_node.evaluation.questions import EvidenceInterval, Expected, QuestionRecord
from salmonn_node.stream.observations import SECOND_NS

_OPTION = re.compile(r"^\s*\(?([A-Z])[).:]\s*(.+?)\s*$")
# Video files have no wall clock. A replayed video starts at this stamp, because a stamp of zero means "unset" in ROS.
VIDEO_START_NS = SECOND_NS


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a .json file (a list) or of a .jsonl file.

    Raises:
        ValueError: the file is neither a list of objects nor lines of objects. The message names the line.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        rows = json.loads(text)
    else:
        rows = []
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    rows.append(json.loads(line))
                except json.JSONDecodeError as error:
                    raise ValueError(f"{path}:{number}: not JSON: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: expected a list of objects")
    return rows


def import_choice(
    rows: Iterable[Mapping[str, Any]], layout: str, duration_s: Callable[[str], float]
) -> Iterator[QuestionRecord]:
    """Turn a benchmark's rows into question records of type CHOICE.

    Args:
        rows: rows from `read_rows`.
        layout: "video-mme", "lvbench" or "plain".
        duration_s: returns the length in seconds of a video, by name. The question is asked then.

    Raises:
        ValueError: the layout is unknown, or a row lacks a field or has an answer that is not one of its options.
    """
    if layout not in _LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; known: {', '.join(_LAYOUTS)}")
    for number, row in enumerate(rows, 1):
        try:
            for video, name, text, options, answer, span in _LAYOUTS[layout](row):
                yield _record(video, name or f"{video}-{number}", text, options, answer, span, duration_s(video))
        except (KeyError, TypeError, ValueError) as error:
            detail = f"lacks the field {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"row {number} of layout {layout}: {detail}") from None


Item = tuple[str, str, str, list[str], str, "tuple[float, float] | None"]


def _record(
    video: str,
    name: str,
    text: str,
    options: list[str],
    answer: str,
    span: tuple[float, float] | None,
    duration_s: float,
) -> QuestionRecord:
    letters = {chr(ord("A") + i): i for i in range(len(options))}
    plain = [match.group(2) if (match := _OPTION.match(option)) else option.strip() for option in options]
    key = answer.strip()
    index = letters.get(key.strip("().:").upper())
    if index is None and key in plain:
        index = plain.index(key)
    if index is None:
        raise ValueError(f"the answer {answer!r} is none of the {len(options)} options")
    ask_ns = VIDEO_START_NS + round(duration_s * SECOND_NS)
    evidence: tuple[EvidenceInterval, ...] = ()
    if span is not None:
        start, end = (VIDEO_START_NS + round(t * SECOND_NS) for t in span)
        evidence = (EvidenceInterval(start_ns=start, end_ns=end),)
    return QuestionRecord(
        id=name,
        stream=video,
        ask_ns=ask_ns,
        text=text,
        kind="other",
        answer_type="CHOICE",
        choices=tuple(plain),
        expected=Expected(text=plain[index], choice_index=index),
        evidence=evidence,
        stream_s=duration_s,
    )


def _video_mme(row: Mapping[str, Any]) -> Iterator[Item]:
    video = str(row.get("videoID") or row["video_id"])
    yield video, str(row.get("question_id", "")), row["question"], list(row["options"]), row["answer"], None


def _lvbench(row: Mapping[str, Any]) -> Iterator[Item]:
    for item in row["qa"]:
        text, *lines = item["question"].split("\n")
        options = [line for line in lines if _OPTION.match(line)]
        span = _time_reference(item.get("time_reference", ""))
        yield str(row["key"]), str(item.get("uid", "")), text, options, item["answer"], span


def _plain(row: Mapping[str, Any]) -> Iterator[Item]:
    span = (float(row["start_s"]), float(row["end_s"])) if "start_s" in row and "end_s" in row else None
    yield str(row["video"]), str(row.get("id", "")), row["question"], list(row["options"]), row["answer"], span


_LAYOUTS: dict[str, Callable[[Mapping[str, Any]], Iterator[Item]]] = {
    "video-mme": _video_mme,
    "lvbench": _lvbench,
    "plain": _plain,
}


def _time_reference(text: str) -> tuple[float, float] | None:
    """Parse `MM:SS-MM:SS` or `H:MM:SS-H:MM:SS` to seconds. None for anything else, such as 'whole video'."""
    parts = text.split("-")
    if len(parts) != 2 or not all(re.fullmatch(r"\s*(\d+:){1,2}\d+\s*", part) for part in parts):
        return None
    start, end = (_clock_s(part) for part in parts)
    return (start, end) if start <= end else None


def _clock_s(text: str) -> float:
    """Parse a clock time to seconds."""
    total = 0
    for part in text.strip().split(":"):
        total = total * 60 + int(part)
    return float(total)
