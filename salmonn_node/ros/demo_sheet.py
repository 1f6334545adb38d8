"""What the demo shows: a table of questions, answers, truth and evidence; the pictures; a file with everything."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from salmonn_node.replay.evidence_picture import picture_of
from salmonn_node.replay.questions import QuestionRecord
from salmonn_node.replay.scores import judge
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Evidence, Outcome
from salmonn_node.stream.observations import SECOND_NS, Interval

SHOWN_EVIDENCE = 2
SHOWN_TEXT = 60
UNTRAINED = "untrained weights"


@dataclass(frozen=True)
class Asked:
    """A question with its answer.

    Attributes:
        record: the question and what is expected.
        ask_ns: stream time up to which it reads the memory.
        playing: asked while the bag was still being played.
        answer: what came back.
        wrong: promise that the answer does not hold, in words; empty when it holds all. Not about being right.
    """

    record: QuestionRecord
    ask_ns: int
    playing: bool
    answer: Answer
    wrong: str

    @property
    def right(self) -> bool:
        """Whether the answer is the expected one."""
        return judge(self.record, self.answer).correct


def show(console: Console, asked: list[Asked], span: Interval, held: dict[str, Any]) -> None:
    """Print the table and what to think of it."""
    table = Table(box=box.ROUNDED, show_lines=True)
    for name, ratio in (("question", 5), ("answer", 5), ("expected", 3), ("evidence", 6)):
        table.add_column(name, ratio=ratio, overflow="fold")
    table.add_column("latency", justify="right", no_wrap=True)
    for item in asked:
        evidence = [_evidence(e, span) for e in item.answer.evidence[:SHOWN_EVIDENCE]]
        mark = Text("✓ ", style="green") if item.right else Text("✗ ", style="red")
        table.add_row(
            Text(item.record.text).append(f"\n{_asked_at(item, span)}", style="dim"),
            _answer(item, span),
            mark.append(_expected(item.record, span), style="not bold default"),
            Text("\n").join(evidence),
            f"{item.answer.latency_s:.2f} s",
        )
    console.print(table)
    if held:
        drops = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in held["drops"].items()) or "nothing"
        console.print(
            f"The memory took in {held['frames']} frames, {held['audio_s']:.0f} s of sound and {held['poses']} poses; "
            f"it holds {held['visual_tokens']} of at most {held['visual_budget']} visual and {held['audio_tokens']} of "
            f"{held['audio_budget']} audio tokens. Left out: {drops}."
        )
    right = sum(item.right for item in asked)
    if any(UNTRAINED in item.answer.text for item in asked):
        console.print(
            f"[bold yellow]{UNTRAINED.capitalize()}:[/bold yellow] the network has not learned anything yet, what it "
            f"says means nothing, and {right} of {len(asked)} right is luck. "
            "Stamps, intervals, poses, pictures and latencies are real."
        )
    else:
        console.print(f"[bold]{right} of {len(asked)} right.[/bold]")


def write(folder: Path, asked: list[Asked], span: Interval, held: dict[str, Any]) -> None:
    """Write evidence pictures and answers.json into a folder."""
    entries = []
    for number, item in enumerate(asked, 1):
        stem = re.sub(r"[^a-z0-9]+", "_", item.record.text.lower()).strip("_")
        pictures = []
        for rank, evidence in enumerate(item.answer.evidence, 1):
            if evidence.thumbnail:
                pictures.append(f"{number:02}_{stem}_{rank}.jpg")
                (folder / pictures[-1]).write_bytes(picture_of(evidence))
        entries.append(
            {
                "question": item.record.model_dump(exclude_defaults=True),
                "asked_while_playing": item.playing,
                "right": item.right,
                "answer": dataclasses.asdict(item.answer),
                "pictures": pictures,
            }
        )
    everything = {"bag_start_ns": span.start_ns, "bag_end_ns": span.end_ns, "memory": held, "asked": entries}
    text = json.dumps(everything, default=_plain, indent=1)
    (folder / "answers.json").write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """JSON of arrays and of pictures, which lie beside it."""
    return value.tolist() if hasattr(value, "tolist") else f"{len(value)} bytes"


def _asked_at(item: Asked, span: Interval) -> str:
    return f"{'while playing, ' if item.playing else ''}at {(item.ask_ns - span.start_ns) / SECOND_NS:.0f} s"


def _answer(item: Asked, span: Interval) -> Text:
    """The typed field in bold, the words below it."""
    answer = item.answer
    if answer.error_code != ErrorCode.NONE:
        return Text(f"{answer.error_code.name}: {answer.error_msg}", style="red")
    words = answer.text if len(answer.text) <= SHOWN_TEXT else answer.text[: SHOWN_TEXT - 1] + "…"
    if answer.outcome != Outcome.ANSWERED:
        return Text(answer.outcome.name.lower().replace("_", " "), style="bold").append(f"\n{words}", style="not bold")
    value = {
        AnswerType.BINARY: lambda: "yes" if answer.binary else "no",
        AnswerType.CHOICE: lambda: item.record.choices[answer.choice_index] if answer.choice_index >= 0 else "none",
        AnswerType.COUNT: lambda: str(answer.count),
        AnswerType.DURATION: lambda: f"for {answer.duration_s:.1f} s",
        AnswerType.POSITION: lambda: (
            f"{answer.pose_kind.name.lower()} at {_xy(answer.pose.position)} m" if answer.pose else "unknown place"
        ),
        AnswerType.TIME: lambda: _seconds(answer.event, span) if answer.event else "unknown time",
    }.get(answer.answer_type)
    return Text(words) if value is None else Text(value(), style="bold").append(f"\n{words}", style="not bold dim")


def _expected(record: QuestionRecord, span: Interval) -> str:
    expected = record.expected
    if not record.answerable:
        return "not observed"
    if expected.position_m is not None:
        return f"{record.pose_kind.name.lower()} at {_xy(expected.position_m)} m"
    if record.answer_type == "TIME" and expected.event_start_ns is not None:
        end_ns = expected.event_end_ns if expected.event_end_ns is not None else expected.event_start_ns
        return _seconds(Interval(expected.event_start_ns, end_ns), span)
    if expected.duration_s is not None:
        return f"for {expected.duration_s:.1f} s"
    if expected.count is not None:
        return str(expected.count)
    return expected.text


def _evidence(evidence: Evidence, span: Interval) -> Text:
    place = f" at {_xy(evidence.pose.position)} m" if evidence.pose is not None else ""
    return Text(f"{_seconds(evidence.interval, span)} {evidence.source}{place}").append(
        f" {round(100 * evidence.score)}%", style="dim"
    )


def _seconds(interval: Interval, span: Interval) -> str:
    start_s, end_s = ((t - span.start_ns) / SECOND_NS for t in (interval.start_ns, interval.end_ns))
    return f"{start_s:.1f} to {end_s:.1f} s"


def _xy(position: Any) -> str:
    return f"({position[0] + 0.0:.1f}, {position[1] + 0.0:.1f})"
