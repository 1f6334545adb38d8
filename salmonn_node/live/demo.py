"""`salmonn demo`: the real node, a bag played into it, questions asked while it plays and after, answers in a table."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from salmonn_node.evaluation.questions import QuestionRecord, read_questions
from salmonn_node.live.demo_sheet import Asked, show, write
from salmonn_node.live.processes import client, end, own_domain, play, running_node
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Outcome
from salmonn_node.stream.observations import SECOND_NS, Interval

if TYPE_CHECKING:
    from salmonn_node.client import Memory

STARTUP_S, ANSWER_S, STATUS_S = 120.0, 60.0, 30.0
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
NODE_PARAMETERS = {
    "use_sim_time": "true",
    "cameras": "[front]",
    "microphones": "[mic]",
    "image_transport": "compressed",
    "image_reliability": "reliable",
    "image_depth": "50",
    # Played faster than recorded, a pause of a third of a second would overflow the usual depth of 100 chunks.
    "audio_depth": "1000",
    "pose_depth": "1000",
    "pose_reliability": "reliable",
    "map_id": "demo",
    "persistence": "false",
    "max_new_tokens": "12",
    "max_evidence": "3",
    "threads": "1",  # more only get in each other's way with a network this small
}
# What was seen stays seen: such questions may be asked as soon as their evidence has passed.
EARLY_KINDS = ("existence", "colour", "seen_when_heard", "what_was_said")
EARLY_NS = 4 * SECOND_NS


@dataclass(frozen=True)
class Show:
    """A bag with its questions, and how the node listens to it."""

    bag: Path
    questions: list[QuestionRecord]
    parameters: dict[str, str]
    remaps: dict[str, str]
    topics: tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument("--bag", choices=("world", "photographs"), default="world", help="which of the two small bags")
    parser.add_argument("--rate", type=float, default=6.0, help="times as fast as recorded")
    parser.add_argument("--checkpoint", default="tiny", help="the one that comes along, or a folder (%(default)s)")
    parser.add_argument("--kill", action="store_true", help="kill the node half way and ask its successor")
    parser.add_argument(
        "--output", type=Path, default=Path("demo_output"), help="folder for pictures, answers and logs"
    )


def run(args: argparse.Namespace) -> int:
    """Run the demo; returns 0 when every question got an answer that holds what it promises, right or not."""
    if args.kill:
        from salmonn_node.live.demo_kill import run_killed

        return run_killed(args)
    own_domain()
    console = Console()
    began = time.monotonic()
    shutil.rmtree(args.output, ignore_errors=True)
    args.output.mkdir(parents=True)
    what = _prepare(args.bag, args.output)
    span = _span(what.bag)
    tell = _Teller(console, began)
    tell.done(f"bag: {span.duration_s:.0f} s of camera, microphone and pose, played {args.rate:g} times as fast")
    parameters = {**NODE_PARAMETERS, **what.parameters, "checkpoint": args.checkpoint}
    with running_node(args.output / "node.log", parameters, what.remaps) as node, client("salmonn_demo") as memory:
        with console.status("starting the node (loads the network)"):
            memory.startup(STARTUP_S)
        tell.done("node: a process of its own, configured and activated")
        player = play(what.bag, args.rate, args.output / "player.log", what.topics, meet="salmonn")
        asked = []
        try:
            for record, ask_ns in _in_order(what.questions):
                with console.status(f"asking: {record.text}"):
                    asked.append(_ask(memory, record, ask_ns, span, player))
                tell.done(f"{'while playing: ' if asked[-1].playing else ''}{record.text}")
        finally:
            end(player)
        held = _memory_status(span)
        alive = node.poll() is None
    write(args.output, asked, span, held)
    show(console, asked, span, held, args.checkpoint)
    problems = [f"{a.record.text} {a.wrong}" for a in asked if a.wrong]
    problems += [] if held else ["the node did not say what its memory holds"]
    problems += [] if alive else ["the node ended early, see node.log"]
    for problem in problems:
        console.print(f"[red]✗ {problem}[/red]")
    console.print(
        f"{len(asked)} questions over ROS 2 in {time.monotonic() - began:.0f} s. A latency includes the wait for the "
        "stream to reach the time asked about.\n"
        f"Pictures of the evidence, answers.json and logs: {args.output}/"
    )
    return 1 if problems else 0


class _Teller:
    """Prints what is done with the seconds since the start."""

    def __init__(self, console: Console, began: float) -> None:
        self.console, self.began = console, began

    def done(self, text: str) -> None:
        self.console.print(f"[green]✓[/green] [dim]{time.monotonic() - self.began:4.0f} s[/dim]  {text}")


def _prepare(kind: str, output: Path) -> Show:
    cameras = ("/front/image/compressed", "/mic/audio")
    if kind == "world":
        from salmonn_node.lab.world.mount import CAMERA_MOUNT, GROUND_Z_M
        from salmonn_node.live.demo_recording import BAG, QUESTIONS

        records = list(read_questions(QUESTIONS))
        # The bag is older than the world's /tf_static: the robot's camera is where the parameter says.
        parameters = {
            "pose_type": "pose_with_covariance",
            "front.mount": str(list(CAMERA_MOUNT)),
            "ground_z_m": str(GROUND_Z_M),
        }
        return Show(BAG, records, parameters, {"pose": "/pose"}, (*cameras, "/pose"))
    from salmonn_node.replay.photographs import photograph_questions, write_photographs

    write_photographs(output / "bag")
    return Show(
        output / "bag", photograph_questions(), {"pose_type": "odometry"}, {"pose": "/odom"}, (*cameras, "/odom")
    )


def _span(path: Path) -> Interval:
    from salmonn_node.replay.bag import Bag

    with Bag(path) as bag:
        return Interval(bag.start_ns, bag.end_ns)


def _in_order(records: list[QuestionRecord]) -> list[tuple[QuestionRecord, int]]:
    """Questions with the stream time at which each is asked, the earliest first."""
    timed = []
    for record in records:
        early_ns = max((e.end_ns for e in record.evidence), default=record.ask_ns) + EARLY_NS
        early = record.answerable and record.kind in EARLY_KINDS
        timed.append((record, min(early_ns, record.ask_ns) if early else record.ask_ns))
    return sorted(timed, key=lambda item: item[1])


def _ask(memory: Memory, record: QuestionRecord, ask_ns: int, span: Interval, player: subprocess.Popen[bytes]) -> Asked:
    """Ask about everything up to `ask_ns`; the node waits until it has observed that far."""
    playing = player.poll() is None and ask_ns < record.ask_ns
    if not playing and player.wait(ANSWER_S):
        late = Answer(error_code=ErrorCode.NOT_ACTIVE, error_msg="the bag could not be played")
        return Asked(record, ask_ns, False, late, "the bag could not be played, see player.log")
    answer = memory.ask(
        record.text,
        answer_type=AnswerType[record.answer_type],
        choices=record.choices,
        before_ns=min(ask_ns, span.end_ns),
        timeout_s=ANSWER_S,
        want_thumbnails=True,
    )
    return Asked(record, ask_ns, playing, answer, _broken_promise(record, answer, span, ask_ns))


def _memory_status(span: Interval) -> dict[str, Any]:
    """What the node says that its memory holds after the bag; empty when it says nothing in time."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    from salmonn_interfaces.msg import MemoryStatus
    from salmonn_node.client.qos import LATCHED
    from salmonn_node.messages import stamp_ns

    held: dict[str, Any] = {}

    def on_status(status: MemoryStatus) -> None:
        # A status is sent once a second while things change: the last one tells of the bag's end.
        if stamp_ns(status.last_observation) >= span.end_ns - SECOND_NS:
            held.update({name: getattr(status, name) for name in SHOWN_STATUS})
            held["drops"] = {drop.reason: drop.count for drop in status.drops}

    node = rclpy.create_node("salmonn_demo_status")
    node.create_subscription(MemoryStatus, "/salmonn/memory_status", on_status, LATCHED)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    deadline = time.monotonic() + STATUS_S
    while not held and time.monotonic() < deadline:
        executor.spin_once(0.2)
    executor.shutdown()
    node.destroy_node()
    return held


def _broken_promise(record: QuestionRecord, answer: Answer, span: Interval, ask_ns: int) -> str:
    """What every answer promises and this one does not hold, in words; empty when nothing."""
    if answer.error_code != ErrorCode.NONE:
        return f"{answer.error_code.name}: {answer.error_msg}"
    if answer.answer_type != AnswerType[record.answer_type]:
        return f"asked for {record.answer_type}, got {answer.answer_type.name}"
    if answer.outcome == Outcome.ANSWERED and not answer.evidence:
        return "the answer has no evidence"
    for evidence in answer.evidence:
        if not span.start_ns <= evidence.interval.start_ns <= ask_ns:
            return "evidence lies outside the window that was asked about"
        if evidence.pose is None or evidence.pose.map_id != NODE_PARAMETERS["map_id"]:
            return "evidence has no pose in the demo's map"
    if answer.outcome == Outcome.ANSWERED and answer.answer_type == AnswerType.POSITION and answer.pose is None:
        return "the position has no pose"
    return ""
