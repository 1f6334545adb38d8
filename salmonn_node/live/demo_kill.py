"""`salmonn demo --kill`: half a bag, kill -9, a new node, the other half; then questions about the first half."""

from __future__ import annotations

import argparse
import shutil
import time

import rclpy
import rclpy.executors
from rich.console import Console
from rich.table import Table

from salmonn_interfaces.msg import MemoryStatus
from salmonn_node.client import Memory
from salmonn_node.client.qos import LATCHED
from salmonn_node.commands.bag import run as bag_command
from salmonn_node.evaluation.scores import judge
from salmonn_node.live.demo import ANSWER_S, NODE_PARAMETERS, STARTUP_S, _prepare, _span
from salmonn_node.live.demo_sheet import expected, say_checkpoint
from salmonn_node.live.processes import end, own_domain, play, running_node
from salmonn_node.messages import stamp_ns
from salmonn_node.stream.answers import AnswerType, ErrorCode, Outcome
from salmonn_node.stream.observations import SECOND_NS

# What may be lost: sound that had not left the resampler, and what was on its way.
LOSS_S = 1.0


def run_killed(args: argparse.Namespace) -> int:
    """Run it; returns 0 when the second node remembers the first half and answers from it."""
    own_domain()
    console, began = Console(), time.monotonic()

    def tell(text: str) -> None:
        console.print(f"[green]✓[/green] [dim]{time.monotonic() - began:4.0f} s[/dim]  {text}")

    shutil.rmtree(args.output, ignore_errors=True)
    args.output.mkdir(parents=True)
    show = _prepare(args.bag, args.output)
    span = _span(show.bag)
    half_s = round(span.duration_s / 2)
    for name, start_s, duration_s in (("first", 0.0, half_s), ("second", half_s, 0.0)):
        out = args.output / name
        cut = argparse.Namespace(action="cut", bag=show.bag, out=out, start=start_s, duration=duration_s,
                                 all_topics=False)  # fmt: skip
        if bag_command(cut):
            return 1
    parameters = {**NODE_PARAMETERS, **show.parameters, "checkpoint": args.checkpoint,
                  "persistence": "true", "snapshot_period_s": "5.0",
                  "memory_directory": str((args.output / "memories").absolute())}  # fmt: skip
    rclpy.init()
    try:
        listener = _Listener()
        with running_node(
            args.output / "node_first.log", parameters, {**show.remaps, "__node": "salmonn_first"}
        ) as node:
            Memory(listener.node, "salmonn_first").startup(STARTUP_S)
            player = play(
                args.output / "first", args.rate, args.output / "player_first.log", show.topics, meet="salmonn_first"
            )
            before = listener.until(_span(args.output / "first").end_ns - SECOND_NS, "salmonn_first")
            node.kill()
            node.wait()
            end(player)
        tell(f"first half: {before.frames} frames, {before.audio_s:.0f} s of sound; the node was killed (SIGKILL)")
        # Another name: discovery takes the killed node for alive for a while, and would send it the questions.
        remaps = {**show.remaps, "__node": "salmonn_again"}
        with running_node(args.output / "node.log", parameters, remaps):
            memory = Memory(rclpy.create_node("planner_again"), "salmonn_again")
            memory.startup(STARTUP_S)
            restored = listener.until(1, "salmonn_again")
            lost_s = (stamp_ns(before.last_observation) - stamp_ns(restored.last_observation)) / SECOND_NS
            tell(
                f"a new node: {restored.frames} frames, {restored.audio_s:.0f} s of sound restored, {lost_s:.1f} s lost"
            )
            player = play(
                args.output / "second", args.rate, args.output / "player.log", show.topics, meet="salmonn_again"
            )
            player.wait()
            tell("second half played")
            middle_ns = span.start_ns + half_s * SECOND_NS
            problems, answered, right = [], 0, 0
            table = Table("question about the first half", "expected", "answer", "evidence, s of the bag")
            for record in show.questions:
                if not record.evidence or max(e.end_ns for e in record.evidence) >= middle_ns:
                    continue
                answer = memory.ask(
                    record.text,
                    answer_type=AnswerType[record.answer_type],
                    choices=record.choices,
                    before_ns=middle_ns,
                    timeout_s=ANSWER_S,
                )
                spans = [(e.interval.start_ns, e.interval.end_ns) for e in answer.evidence]
                if answer.error_code != ErrorCode.NONE:
                    problems.append(f"{record.text} {answer.error_code.name}: {answer.error_msg}")
                elif any(not span.start_ns <= low <= middle_ns for low, _ in spans):
                    problems.append(f"{record.text} evidence outside the first half")
                answered += answer.outcome == Outcome.ANSWERED and bool(spans)
                where = ", ".join(f"{(a - span.start_ns) / 1e9:.0f}-{(b - span.start_ns) / 1e9:.0f}" for a, b in spans)
                found = judge(record, answer)
                right += found.correct
                mark = "[green]right[/green]" if found.correct else "[red]wrong[/red]"
                said = f"{answer.text or answer.outcome.name}, {mark}"
                table.add_row(record.text, expected(record, span), said, where or "-")
            console.print(table)
    finally:
        rclpy.try_shutdown()
    if lost_s > LOSS_S or restored.frames < before.frames - 1:
        problems.append(f"{lost_s:.1f} s were lost, {before.frames - restored.frames} frames")
    if not answered:
        problems.append("no question about the first half was answered with evidence")
    for problem in problems:
        console.print(f"[red]✗ {problem}[/red]")
    say_checkpoint(console, args.checkpoint, restored.checkpoint_id, restored.checkpoint_trained)
    console.print(f"{right} of {table.row_count} right", highlight=False)
    console.print(f"{table.row_count} questions about what the killed node saw, in {time.monotonic() - began:.0f} s")
    return 1 if problems else 0


class _Listener:
    """Hears what nodes say of their memories."""

    def __init__(self) -> None:
        self.node = rclpy.create_node("salmonn_demo")
        self._executor = rclpy.executors.SingleThreadedExecutor()

    def until(self, newest_ns: int, name: str) -> MemoryStatus:
        """The first status of node `name` that reaches `newest_ns`; raises TimeoutError after a minute or so."""
        found: list[MemoryStatus] = []
        subscription = self.node.create_subscription(MemoryStatus, f"/{name}/memory_status", found.append, LATCHED)
        self._executor.add_node(self.node)
        deadline = time.monotonic() + STARTUP_S
        try:
            while time.monotonic() < deadline:
                self._executor.spin_once(0.2)
                if found and stamp_ns(found[-1].last_observation) >= newest_ns:
                    return found[-1]
        finally:
            self._executor.remove_node(self.node)
            self.node.destroy_subscription(subscription)
        raise TimeoutError(f"{name} did not observe up to {newest_ns} in {STARTUP_S:.0f} s")
