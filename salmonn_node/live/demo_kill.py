"""The demo of a restart: half a bag, kill -9, a new node, the other half; then questions about the first half."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import rclpy
from rich.console import Console
from rich.table import Table

from salmonn_interfaces.msg import MemoryStatus
from salmonn_node.client.memory_client import Memory
from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.evaluation.scores import Judgement, judge
from salmonn_node.live.demo_setup import (
    ANSWER_S,
    NODE_PARAMETERS,
    STARTUP_S,
    DemoOptions,
    DemoRecording,
    Teller,
    prepare,
    span_of,
)
from salmonn_node.live.demo_sheet import expected, mark, say_checkpoint
from salmonn_node.live.processes import end, own_domain, play, running_node
from salmonn_node.live.status import await_status
from salmonn_node.messages import stamp_ns
from salmonn_node.replay.bag_cut import cut_bag
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Outcome
from salmonn_node.stream.observations import SECOND_NS, Interval

# What may be lost: sound that had not left the resampler, and what was on its way.
LOSS_S = 1.0
# The second node has another name: discovery takes a killed node for alive for a while, and would send it questions.
KILLED, SUCCESSOR = "salmonn_first", "salmonn_again"


@dataclass(frozen=True)
class Reply:
    """A question about the first half, and what the second node answered."""

    record: QuestionRecord
    answer: Answer
    judgement: Judgement


def run_demo_kill(options: DemoOptions, console: Console) -> bool:
    """Run it and print a table; True when the second node remembers the first half and answers from it.

    Raises:
        ValueError: the output folder cannot be used.
    """
    own_domain()
    tell = Teller(console)
    recording = prepare(options)
    span = span_of(recording.bag)
    half_s = round(span.duration_s / 2)
    first, second = options.output / "first", options.output / "second"
    cut_bag(recording.bag, first, duration_s=half_s)
    cut_bag(recording.bag, second, start_s=half_s)
    parameters = {
        **NODE_PARAMETERS,
        **recording.parameters,
        "checkpoint": options.checkpoint,
        "persistence": "true",
        "snapshot_period_s": "5.0",
        "memory_directory": str((options.output / "memories").absolute()),
    }
    rclpy.init()
    try:
        before = _observe_and_die(options, replace(recording, bag=first), parameters)
        tell.done(f"first half: {before.frames} frames, {before.audio_s:.0f} s of sound; the node was killed (SIGKILL)")
        remaps = {**recording.remaps, "__node": SUCCESSOR}
        with running_node(options.output / "node.log", parameters, remaps):
            memory = Memory(rclpy.create_node("salmonn_planner"), SUCCESSOR)
            memory.startup(STARTUP_S)
            restored = await_status(SUCCESSOR, 1, STARTUP_S)
            lost_s = (stamp_ns(before.last_observation) - stamp_ns(restored.last_observation)) / SECOND_NS
            tell.done(
                f"a new node: {restored.frames} frames, {restored.audio_s:.0f} s of sound restored, {lost_s:.1f} s lost"
            )
            player = play(second, options.rate, options.output / "player.log", recording.topics, meet=SUCCESSOR)
            player.wait()
            tell.done("second half played")
            half = Interval(span.start_ns, span.start_ns + half_s * SECOND_NS)
            replies = list(_ask_about(memory, half, recording.questions))
    finally:
        rclpy.try_shutdown()
    console.print(_table(replies, span))
    problems = _problems(replies, half)
    if lost_s > LOSS_S or restored.frames < before.frames - 1:
        problems.append(f"{lost_s:.1f} s were lost, {before.frames - restored.frames} frames")
    for problem in problems:
        console.print(f"[red]✗ {problem}[/red]")
    say_checkpoint(console, options.checkpoint, restored.checkpoint_id, restored.checkpoint_trained)
    console.print(f"{sum(r.judgement.correct for r in replies)} of {len(replies)} right", highlight=False)
    console.print(f"{len(replies)} questions about what the killed node saw, in {tell.elapsed_s:.0f} s")
    return not problems


def _observe_and_die(options: DemoOptions, recording: DemoRecording, parameters: dict[str, str]) -> MemoryStatus:
    """Play the first half into a node and kill it; returns what it said that its memory held."""
    log, remaps = options.output / "node_first.log", {**recording.remaps, "__node": KILLED}
    with running_node(log, parameters, remaps) as node:
        Memory(rclpy.create_node("salmonn_demo"), KILLED).startup(STARTUP_S)
        player = play(recording.bag, options.rate, options.output / "player_first.log", recording.topics, meet=KILLED)
        before = await_status(KILLED, span_of(recording.bag).end_ns - SECOND_NS, STARTUP_S)
        node.kill()
        node.wait()
        end(player)
    return before


def _ask_about(memory: Memory, half: Interval, questions: list[QuestionRecord]) -> Iterator[Reply]:
    """Ask each question whose evidence ended within `half`, of the memory as it was at the end of `half`."""
    for record in questions:
        if not record.evidence or max(e.end_ns for e in record.evidence) >= half.end_ns:
            continue
        answer = memory.ask(
            record.text,
            answer_type=AnswerType[record.answer_type],
            choices=record.choices,
            before_ns=half.end_ns,
            timeout_s=ANSWER_S,
        )
        yield Reply(record, answer, judge(record, answer))


def _problems(replies: list[Reply], half: Interval) -> list[str]:
    """What does not hold, in words; wrong answers are none."""
    problems = []
    for reply in replies:
        answer, text = reply.answer, reply.record.text
        if answer.error_code != ErrorCode.NONE:
            problems.append(f"{text} {answer.error_code.name}: {answer.error_msg}")
        elif any(not half.start_ns <= e.interval.start_ns <= half.end_ns for e in answer.evidence):
            problems.append(f"{text} evidence outside the first half")
    if not any(r.answer.outcome == Outcome.ANSWERED and r.answer.evidence for r in replies):
        problems.append("no question about the first half was answered with evidence")
    return problems


def _table(replies: list[Reply], span: Interval) -> Table:
    table = Table("question about the first half", "expected", "answer", "evidence, s of the bag")
    for reply in replies:
        answer = reply.answer
        where = ", ".join(
            f"{(e.interval.start_ns - span.start_ns) / 1e9:.0f}-{(e.interval.end_ns - span.start_ns) / 1e9:.0f}"
            for e in answer.evidence
        )
        said = mark(reply.judgement.correct).append(f" {answer.text or answer.outcome.name}", style="default")
        table.add_row(reply.record.text, expected(reply.record, span), said, where or "-")
    return table
