"""`salmonn demo`: the real node, a bag played into it, questions asked while it plays and after, answers in a table."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from salmonn_node.ros.processes import client, end, own_domain, play, running_node
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Outcome
from salmonn_node.stream.observations import SECOND_NS, Interval

if TYPE_CHECKING:
    from salmonn_node.ros.client import Memory

TOPICS = ("/camera/image/compressed", "/microphone/audio", "/odom")
MAP_ID = "demo_corridor"
CLIENT = "salmonn_demo"
STARTUP_S, ANSWER_S = 120.0, 60.0
NODE_ARGUMENTS = {
    "use_sim_time": "true",
    "image_transport": "compressed",
    "image_reliability": "reliable",
    "image_depth": "50",
    "map_id": MAP_ID,
    "persistence": "false",
    "max_new_tokens": "12",
    "max_evidence": "3",
    "threads": "1",  # more only get in each other's way with a network this small
}


@dataclasses.dataclass(frozen=True)
class DemoQuestion:
    """What is asked, and when: `at_s` seconds into the bag, or after it has ended."""

    text: str
    answer_type: AnswerType
    at_s: float | None = None
    choices: tuple[str, ...] = ()


QUESTIONS = {
    "scene": (
        DemoQuestion("Where did you see the red box?", AnswerType.POSITION, 8.0),
        DemoQuestion("Did a doorbell ring?", AnswerType.BINARY, 14.0),
        DemoQuestion("When did you pass the blue door?", AnswerType.TIME, 20.0),
        DemoQuestion("How long did the alarm sound?", AnswerType.DURATION, 28.0),
        DemoQuestion("How many objects stood in the corridor?", AnswerType.COUNT),
        DemoQuestion("What colour was the chair?", AnswerType.CHOICE, choices=("red", "yellow", "white")),
        DemoQuestion("What did you see and hear?", AnswerType.TEXT),
    ),
    "photographs": (
        DemoQuestion("Was there a cat?", AnswerType.BINARY, 10.0),
        DemoQuestion("When did you see the cup of coffee?", AnswerType.TIME),
        DemoQuestion(
            "What was in the last picture?", AnswerType.CHOICE, choices=("a rocket", "a cat", "a photographer")
        ),
        DemoQuestion("What did you see?", AnswerType.TEXT),
    ),
}


@dataclasses.dataclass(frozen=True)
class Asked:
    """A question with its answer and what is wrong with it, in words."""

    question: DemoQuestion
    answer: Answer
    wrong: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument("--bag", choices=tuple(QUESTIONS), default="scene", help="which of the two small bags")
    parser.add_argument("--rate", type=float, default=4.0, help="times as fast as recorded")
    parser.add_argument(
        "--output", type=Path, default=Path("demo_output"), help="folder for pictures, answers and logs"
    )


def run(args: argparse.Namespace) -> int:
    """Run the demo; returns 0 when every question got an answer that holds what it promises."""
    own_domain()
    console = Console()
    began = time.monotonic()
    shutil.rmtree(args.output, ignore_errors=True)
    args.output.mkdir(parents=True)
    bag = args.output / "bag"
    with console.status("drawing the bag"):
        span = _make_bag(args.bag, bag)
    console.print(f"[green]✓[/green] bag      {span.duration_s:.0f} s of camera, microphone and odometry in {bag}")
    with running_node(args.output / "node.log", NODE_ARGUMENTS, {"pose": "odom"}) as node, client(CLIENT) as memory:
        with console.status("starting the node"):
            memory.startup(STARTUP_S)
        console.print("[green]✓[/green] node     salmonn: configured and activated")
        player = play(bag, args.rate, args.output / "player.log", TOPICS)
        try:
            asked = []
            for question in QUESTIONS[args.bag]:
                with console.status(f"asking: {question.text}"):
                    asked.append(_ask(memory, question, span, player))
                console.print(f"[green]✓[/green] {_when(question):<8} {question.text}")
        finally:
            end(player)
        alive = node.poll() is None
    _write(args.output, asked, span)
    console.print(_table(asked, span))
    if any("untrained weights" in a.answer.text for a in asked):
        console.print(
            Panel(
                "The network has [bold]untrained weights[/bold]: what it says means nothing yet. "
                "Stamps, intervals, poses, pictures and latencies are real.",
                box=box.ROUNDED,
                style="yellow",
            )
        )
    problems = [f"{a.question.text} {a.wrong}" for a in asked if a.wrong]
    problems += [] if alive else ["the node ended early, see node.log"]
    for problem in problems:
        console.print(f"[red]✗ {problem}[/red]")
    console.print(
        f"{len(asked)} questions in {time.monotonic() - began:.0f} s. "
        f"Pictures, answers.json and logs are in [bold]{args.output}/[/bold]."
    )
    return 1 if problems else 0


def _make_bag(kind: str, path: Path) -> Interval:
    from salmonn_node.replay import demo_bag
    from salmonn_node.replay.bag import Bag

    {"scene": demo_bag.write_scene, "photographs": demo_bag.write_photographs}[kind](path)
    with Bag(path) as bag:
        return Interval(bag.start_ns, bag.end_ns)


def _ask(memory: Memory, question: DemoQuestion, span: Interval, player: subprocess.Popen[bytes]) -> Asked:
    """Ask, at its time: a question about a window that is still being played waits in the node for its end."""
    before_ns = span.start_ns + round(question.at_s * SECOND_NS) if question.at_s is not None else 0
    if question.at_s is None and player.wait(ANSWER_S):
        return Asked(question, Answer(error_code=ErrorCode.NOT_ACTIVE), "the bag could not be played, see player.log")
    answer = memory.ask(
        question.text,
        answer_type=question.answer_type,
        choices=question.choices,
        before_ns=before_ns,
        timeout_s=ANSWER_S,
        want_thumbnails=True,
    )
    return Asked(question, answer, _wrong(question, answer, span, before_ns or span.end_ns))


def _wrong(question: DemoQuestion, answer: Answer, span: Interval, before_ns: int) -> str:
    """What an answer promises and does not hold; empty when nothing."""
    if answer.error_code != ErrorCode.NONE:
        return f"{answer.error_code.name}: {answer.error_msg}"
    if answer.answer_type != question.answer_type:
        return f"asked for {question.answer_type.name}, got {answer.answer_type.name}"
    if answer.outcome != Outcome.ANSWERED:
        return ""
    if not answer.evidence:
        return "the answer has no evidence"
    for evidence in answer.evidence:
        # Half a second: the last audio token of a window may reach over its end.
        if evidence.interval.start_ns < span.start_ns or evidence.interval.start_ns > before_ns + SECOND_NS // 2:
            return "evidence lies outside the window"
        if evidence.pose is None or evidence.pose.map_id != MAP_ID:
            return "evidence has no pose in the demo's map"
    if question.answer_type == AnswerType.POSITION and answer.pose is None:
        return "the position has no pose"
    return ""


def _when(question: DemoQuestion) -> str:
    return "after" if question.at_s is None else f"at {question.at_s:.0f} s"


def _table(asked: list[Asked], span: Interval) -> Table:
    table = Table(box=box.ROUNDED, show_lines=True)
    for name, options in (
        ("question", {"ratio": 3}),
        ("answer", {"ratio": 3}),
        ("evidence", {"ratio": 3}),
        ("robot was at", {"no_wrap": True}),
        ("latency", {"justify": "right", "no_wrap": True}),
    ):
        table.add_column(name, **options)
    for item in asked:
        answer = item.answer
        evidence = "\n".join(
            f"{_seconds(e.interval, span)}  {e.modality} {round(100 * e.score)}%" for e in answer.evidence
        )
        places = "\n".join(_place(e.pose) for e in answer.evidence)
        asked_when = Text(item.question.text).append(f"\n{_when(item.question)}", style="dim")
        table.add_row(asked_when, _typed(item, span), evidence, places, f"{answer.latency_s:.2f} s")
    return table


def _typed(item: Asked, span: Interval) -> Text:
    """The typed field in bold, the words below it."""
    answer = item.answer
    if answer.error_code != ErrorCode.NONE:
        return Text(f"{answer.error_code.name}: {answer.error_msg}", style="red")
    value = {
        AnswerType.BINARY: lambda: "yes" if answer.binary else "no",
        AnswerType.CHOICE: lambda: item.question.choices[answer.choice_index],
        AnswerType.COUNT: lambda: str(answer.count),
        AnswerType.DURATION: lambda: f"{answer.duration_s:.1f} s",
        AnswerType.POSITION: lambda: f"{_place(answer.pose)} ({answer.pose_kind.name.lower()})",
        AnswerType.TIME: lambda: _seconds(answer.event, span) if answer.event else "unknown",
    }.get(answer.answer_type, lambda: "")()
    text = Text(f"{answer.answer_type.name} ", style="dim").append(value, style="bold not dim")
    return text.append(f"\n{answer.text}", style="not dim")


def _seconds(interval: Interval, span: Interval) -> str:
    start_s, end_s = ((t - span.start_ns) / SECOND_NS for t in (interval.start_ns, interval.end_ns))
    return f"{start_s:.1f} to {end_s:.1f} s"


def _place(pose: Any) -> str:
    return f"x {pose.position[0]:.1f}  y {pose.position[1]:.1f} m" if pose is not None else "unknown"


def _write(folder: Path, asked: list[Asked], span: Interval) -> None:
    """Evidence pictures and answers.json."""
    entries = []
    for number, item in enumerate(asked, 1):
        stem = re.sub(r"[^a-z0-9]+", "_", item.question.text.lower()).strip("_")
        pictures = []
        for rank, evidence in enumerate(item.answer.evidence, 1):
            if evidence.thumbnail:
                name = f"{number:02}_{stem}_{rank}.jpg"
                (folder / name).write_bytes(evidence.thumbnail)
                pictures.append(name)
        fields = dataclasses.asdict(item.answer)
        entries.append({"question": dataclasses.asdict(item.question), "answer": fields, "pictures": pictures})
    text = json.dumps({"bag_start_ns": span.start_ns, "asked": entries}, indent=1, default=_plain)
    (folder / "answers.json").write_text(text + "\n")


def _plain(value: Any) -> Any:
    """JSON of arrays and pictures."""
    return value.tolist() if hasattr(value, "tolist") else f"{len(value)} bytes"
