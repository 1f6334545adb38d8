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
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from salmonn_node.evaluation.evidence_picture import picture_of
from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.evaluation.scores import Judgement, judge
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Evidence, Outcome
from salmonn_node.stream.observations import SECOND_NS, Interval

SHOWN_EVIDENCE = 2
SHOWN_TEXT = 60
TINY = "tiny"


@dataclass(frozen=True)
class DemoAnswer:
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
    def judgement(self) -> Judgement:
        """The answer against what is expected."""
        return judge(self.record, self.answer)


def show(console: Console, asked: list[DemoAnswer], span: Interval, held: dict[str, Any], checkpoint: str) -> None:
    """Print the table and what to think of it; `checkpoint` is the node's parameter."""
    table = Table(box=box.ROUNDED, show_lines=True)
    for name, ratio in (("question", 5), ("expected", 3), ("answer", 4), ("evidence", 5)):
        table.add_column(name, ratio=ratio, overflow="fold")
    table.add_column("latency", justify="right", no_wrap=True)
    judgements = [item.judgement for item in asked]
    for item, judged in zip(asked, judgements, strict=True):
        shown = [_evidence(e, span) for e in item.answer.evidence[:SHOWN_EVIDENCE]]
        if judged.evidence_hit is not None:
            shown.insert(0, mark(judged.evidence_hit))
        table.add_row(
            Text(item.record.text).append(f"\n{_asked_at(item, span)}", style="dim"),
            expected(item.record, span),
            mark(judged.correct).append("\n").append(_answer(item, span)),
            Text("\n").join(shown),
            f"{item.answer.latency_s:.2f} s",
        )
    console.print(table)
    if held:
        drops = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in held["drops"].items()) or "nothing"
        console.print(
            f"The memory took in {held['frames']} frames, {held['audio_s']:.0f} s of sound and {held['poses']} poses; "
            f"it holds {held['visual_tokens']} of at most {held['visual_budget']} visual and {held['audio_tokens']} of "
            f"{held['audio_budget']} audio tokens, and a few that wait. Left out: {drops}."
        )
        say_checkpoint(console, checkpoint, held["checkpoint_id"], held["checkpoint_trained"])
    console.print(f"[bold]{total(judgements)}[/bold]", highlight=False)


def total(judgements: list[Judgement]) -> str:
    """How many answers are right, and for how many answerable questions some evidence is."""
    answerable = [j for j in judgements if j.record.answerable]
    right, found = sum(j.correct for j in judgements), sum(bool(j.evidence_hit) for j in answerable)
    return f"{right} of {len(judgements)} right, evidence right in {found} of {len(answerable)} answerable"


def say_checkpoint(console: Console, name: str, checkpoint_id: str, trained: bool) -> None:
    """Which weights answered, and what may be expected of them."""
    if not trained:
        meaning = (
            "[bold yellow]untrained weights[/bold yellow]: the network has not learned anything, what it says means "
            "nothing, and what is right is luck. Stamps, intervals, poses, pictures and latencies are real."
        )
    elif name == TINY:
        meaning = "trained on the synthetic world alone: it knows its flats, things and sounds, and nothing else."
    else:
        meaning = "trained."
    console.print(f"Checkpoint {escape(name)} ({checkpoint_id}): {meaning}", highlight=False)


def mark(right: bool) -> Text:
    """Whether something is right, in a word and a colour."""
    return Text("✓ right", style="green") if right else Text("✗ wrong", style="red")


def write(folder: Path, asked: list[DemoAnswer], span: Interval, held: dict[str, Any]) -> None:
    """Write evidence pictures and answers.json into a folder."""
    entries = []
    for number, item in enumerate(asked, 1):
        stem = re.sub(r"[^a-z0-9]+", "_", item.record.text.lower()).strip("_")
        pictures, judged = [], item.judgement
        for rank, evidence in enumerate(item.answer.evidence, 1):
            if evidence.thumbnail:
                pictures.append(f"{number:02}_{stem}_{rank}.jpg")
                (folder / pictures[-1]).write_bytes(picture_of(evidence))
        entries.append(
            {
                "question": item.record.model_dump(exclude_defaults=True),
                "asked_while_playing": item.playing,
                "right": judged.correct,
                "evidence_right": judged.evidence_hit,
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


def _asked_at(item: DemoAnswer, span: Interval) -> str:
    return f"{'while playing, ' if item.playing else ''}at {(item.ask_ns - span.start_ns) / SECOND_NS:.0f} s"


def _answer(item: DemoAnswer, span: Interval) -> Text:
    """The typed field in bold, the words below it."""
    answer = item.answer
    if answer.error_code != ErrorCode.NONE:
        return Text(f"{answer.error_code.name}: {answer.error_msg}", style="red")
    words = answer.text if len(answer.text) <= SHOWN_TEXT else answer.text[: SHOWN_TEXT - 1] + "…"
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
    if answer.outcome != Outcome.ANSWERED:
        said = answer.outcome.name.lower().replace("_", " ")
    elif value is None:
        return Text(words, style="bold")
    else:
        said = value()
    shown = Text(said, style="bold")
    return shown if words == said else shown.append(f"\n{words}", style="not bold dim")


def expected(record: QuestionRecord, span: Interval) -> str:
    """What a right answer says, in words."""
    truth = record.expected
    if not record.answerable:
        return "not observed"
    if truth.position_m is not None:
        return f"{record.pose_kind.name.lower()} at {_xy(truth.position_m)} m"
    if record.answer_type == "TIME" and truth.event_start_ns is not None:
        end_ns = truth.event_end_ns if truth.event_end_ns is not None else truth.event_start_ns
        return _seconds(Interval(truth.event_start_ns, end_ns), span)
    if truth.duration_s is not None:
        return f"for {truth.duration_s:.1f} s"
    if truth.count is not None:
        return str(truth.count)
    return truth.text


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


def broken_promise(record: QuestionRecord, answer: Answer, span: Interval, ask_ns: int, map_id: str) -> str:
    """The promise that an answer does not keep, in words; empty when it keeps all. Being right is no promise."""
    if answer.error_code != ErrorCode.NONE:
        return f"{answer.error_code.name}: {answer.error_msg}"
    if answer.answer_type != AnswerType[record.answer_type]:
        return f"asked for {record.answer_type}, got {answer.answer_type.name}"
    if answer.outcome == Outcome.ANSWERED and not answer.evidence:
        return "the answer has no evidence"
    for evidence in answer.evidence:
        if not span.start_ns <= evidence.interval.start_ns <= ask_ns:
            return "evidence lies outside the window that was asked about"
        if evidence.pose is None or evidence.pose.map_id != map_id:
            return "evidence has no pose in the demo's map"
    if answer.outcome == Outcome.ANSWERED and answer.answer_type == AnswerType.POSITION and answer.pose is None:
        return "the position has no pose"
    return ""
