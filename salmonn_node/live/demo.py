"""The demo: the real node, a bag played into it, questions asked while it plays and after, answers in a table."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.live.demo_page import keep_page
from salmonn_node.live.demo_setup import ANSWER_S, NODE_PARAMETERS, STARTUP_S, DemoOptions, Teller, prepare, span_of
from salmonn_node.live.demo_sheet import DemoAnswer, broken_promise, show, write
from salmonn_node.live.processes import client, end, own_domain, play, running_node
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode
from salmonn_node.stream.observations import SECOND_NS, Interval

if TYPE_CHECKING:
    from salmonn_node.client.memory_client import Memory

STATUS_S = 30.0
SHOWN_STATUS = (
    "memory_id",
    "frames",
    "audio_s",
    "poses",
    "visual_tokens",
    "visual_budget",
    "audio_tokens",
    "audio_budget",
    "checkpoint_id",
    "checkpoint_trained",
)
# What was seen stays seen: such questions may be asked as soon as their evidence has passed.
EARLY_KINDS = ("existence", "colour", "seen_when_heard", "what_was_said")
EARLY_NS = 4 * SECOND_NS


def run_demo(options: DemoOptions, console: Console) -> bool:
    """Run the demo and print its table; True when every answer keeps its promises, be it right or wrong.

    Raises:
        ValueError: the output folder cannot be used.
    """
    own_domain()
    tell = Teller(console)
    recording = prepare(options)
    span = span_of(recording.bag)
    tell.done(f"bag: {span.duration_s:.0f} s of camera, microphone and pose, played {options.rate:g} times as fast")
    parameters = {**NODE_PARAMETERS, **recording.parameters, "checkpoint": options.checkpoint}
    if options.page:  # so that the page can forget, save and load
        parameters |= {"persistence": "true", "memory_directory": str((options.output / "memories").resolve())}
    log = options.output / "node.log"
    with running_node(log, parameters, recording.remaps) as node, client("salmonn_demo") as memory:
        with console.status("starting the node (loads the network)"):
            memory.startup(STARTUP_S)
        tell.done("node: a process of its own, configured and activated")
        player = play(recording.bag, options.rate, options.output / "player.log", recording.topics, meet="salmonn")
        asked = []
        try:
            for record, ask_ns in _in_order(recording.questions):
                with console.status(f"asking: {record.text}"):
                    asked.append(_ask(memory, record, ask_ns, span, player))
                tell.done(f"{'while playing: ' if asked[-1].playing else ''}{record.text}")
        finally:
            end(player)
        held = _memory_status(span)
        alive = node.poll() is None
        kept = _finish(options, console, tell, asked, span, held, alive)
        if options.page:
            keep_page(console, options.output / "page.log")
    return kept


def _finish(
    options: DemoOptions,
    console: Console,
    tell: Teller,
    asked: list[DemoAnswer],
    span: Interval,
    held: dict[str, Any],
    alive: bool,
) -> bool:
    """Write and show what came of it; True when every answer keeps its promises."""
    write(options.output, asked, span, held)
    show(console, asked, span, held, options.checkpoint)
    problems = [f"{a.record.text} {a.wrong}" for a in asked if a.wrong]
    problems += [] if held else ["the node did not say what its memory holds"]
    problems += [] if alive else ["the node ended early, see node.log"]
    for problem in problems:
        console.print(f"[red]✗ {problem}[/red]")
    console.print(
        f"{len(asked)} questions over ROS 2 in {tell.elapsed_s:.0f} s. A latency includes the wait for the "
        "stream to reach the time asked about.\n"
        f"Pictures of the evidence, answers.json and logs: {options.output}/"
    )
    if not options.page:
        command = Path(sys.argv[0]).name if shutil.which(Path(sys.argv[0]).name) else sys.argv[0]
        console.print(f"Ask your own questions in a browser: {command} demo --ui", highlight=False, soft_wrap=True)
    return not problems


def _in_order(records: list[QuestionRecord]) -> list[tuple[QuestionRecord, int]]:
    """Questions with the stream time at which each is asked, the earliest first."""
    timed = []
    for record in records:
        early_ns = max((e.end_ns for e in record.evidence), default=record.ask_ns) + EARLY_NS
        early = record.answerable and record.kind in EARLY_KINDS
        timed.append((record, min(early_ns, record.ask_ns) if early else record.ask_ns))
    return sorted(timed, key=lambda item: item[1])


def _ask(
    memory: Memory, record: QuestionRecord, ask_ns: int, span: Interval, player: subprocess.Popen[bytes]
) -> DemoAnswer:
    """Ask about everything up to `ask_ns`; the node waits until it has observed that far."""
    playing = player.poll() is None and ask_ns < record.ask_ns
    if not playing and player.wait(ANSWER_S):
        late = Answer(error_code=ErrorCode.NOT_ACTIVE, error_msg="the bag could not be played")
        return DemoAnswer(record, ask_ns, False, late, "the bag could not be played, see player.log")
    answer = memory.ask(
        record.text,
        answer_type=AnswerType[record.answer_type],
        choices=record.choices,
        before_ns=min(ask_ns, span.end_ns),
        timeout_s=ANSWER_S,
        want_thumbnails=True,
    )
    return DemoAnswer(
        record, ask_ns, playing, answer, broken_promise(record, answer, span, ask_ns, NODE_PARAMETERS["map_id"])
    )


def _memory_status(span: Interval) -> dict[str, Any]:
    """What the node says that its memory holds at the end of the bag; empty when it says nothing in time."""
    from salmonn_node.live.status import await_status

    try:
        # The last second of the bag may hold nothing that the memory takes in.
        status = await_status("salmonn", span.end_ns - SECOND_NS, STATUS_S)
    except TimeoutError:
        return {}
    held = {name: getattr(status, name) for name in SHOWN_STATUS}
    return {**held, "drops": {drop.reason: drop.count for drop in status.drops}}
