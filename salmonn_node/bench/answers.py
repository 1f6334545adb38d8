"""How answers keep their time: a burst of questions with short deadlines while sensors send, then each type alone."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

SETTLE_S = 5.0  # of stream before the first question, so that there is something to read
TYPES = ("TEXT", "BINARY", "POSITION", "TIME", "DURATION", "COUNT", "CHOICE")
LOST = ("queue_full", "encode_failed", "device_failed")
PATIENCE_S = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments."""
    parser.add_argument("--questions", type=int, default=100, help="asked at once (default: 100)")
    parser.add_argument("--deadline", type=float, default=2.0, help="of each of them, in seconds (default: 2)")
    parser.add_argument("--rounds", type=int, default=5, help="questions of each type, one by one (default: 5)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Start the real node, let sensors send to it, and ask."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    from salmonn_node.ros.client import Memory
    from salmonn_node.ros.processes import own_domain, running_node

    own_domain()
    node_parameters = {"image_transport": "compressed", "persistence": "false", "threads": "1"}
    with tempfile.TemporaryDirectory() as folder, running_node(Path(folder) / "log", node_parameters, {}):
        rclpy.init()
        node = rclpy.create_node("answers_bench")
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        threading.Thread(target=executor.spin, daemon=True).start()
        try:
            values = _listen(node)
            memory = Memory(node)
            memory.startup(180.0)
            seconds = SETTLE_S + args.deadline + 2.0 * args.rounds * len(TYPES)
            source = [sys.executable, "-m", "salmonn_node.bench.ingest_source", "--compressed"]
            # They are ended in the middle of their work, and rclpy complains of that.
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            with subprocess.Popen([*source, "--seconds", str(seconds)], **quiet) as sensors:
                try:
                    _wait(SETTLE_S, lambda: int(values.get("frames", 0)) >= SETTLE_S - 1)
                    burst = _burst(node, args.questions, args.deadline)
                    alone = {name: _alone(memory, name, args.rounds) for name in TYPES}
                    sending = sensors.poll() is None
                    _wait(2.0, lambda: False)  # one more round of diagnostics
                finally:
                    sensors.terminate()
        finally:
            executor.shutdown()
            node.destroy_node()
            rclpy.try_shutdown()
    lost = {reason: int(values.get(f"dropped.{reason}", 0)) for reason in LOST}
    kept = burst["replies"] == args.questions and not burst["answered_late"] and not any(lost.values())
    return {
        "burst": burst,
        "alone": alone,
        "frames": int(values.get("frames", 0)),
        "ingest_lost": lost,
        "sensors_sent_throughout": sending,
        "promise_kept": kept,
    }


def tables(results: dict[str, Any]) -> list[Table]:
    """The burst, and latency by type."""
    burst = results["burst"]
    table = Table("figure", "value", title=f"{burst['asked']} questions at once, {burst['deadline_s']} s each")
    table.add_row("replies, of them after the deadline", f"{burst['replies']}, {burst['late']}")
    table.add_row("answered after the deadline", str(burst["answered_late"]))
    table.add_row("overshoot at worst", f"{burst['overshoot_s']:.3f} s")
    table.add_row("codes", ", ".join(f"{code} {count}" for code, count in burst["codes"].items()))
    table.add_row("latency p50 / p99", f"{burst['p50_s']:.3f} / {burst['p99_s']:.3f} s")
    lost = ", ".join(f"{reason} {count}" for reason, count in results["ingest_lost"].items())
    table.add_row(f"observations lost beside {results['frames']} frames", lost)
    table.add_row("promise kept", "yes" if results["promise_kept"] else "no")
    types = Table(title="one at a time, while sensors send")
    for column in ("type", "asked", "codes", "p50 s", "p99 s", "first text p50 s"):
        types.add_column(column)
    for name, one in results["alone"].items():
        codes = ", ".join(f"{code} {count}" for code, count in one["codes"].items())
        first = "-" if one["first_text_p50_s"] is None else f"{one['first_text_p50_s']:.3f}"
        types.add_row(name, str(one["asked"]), codes, f"{one['p50_s']:.3f}", f"{one['p99_s']:.3f}", first)
    return [table, types]


def _burst(node: Any, count: int, deadline_s: float) -> dict[str, Any]:
    """All at once over the service; latency is the node's own, from receipt to reply."""
    from salmonn_interfaces.srv import Query
    from salmonn_node.messages import answer_from_message
    from salmonn_node.ros.deferred import MANY_AT_ONCE

    client = node.create_client(Query, "salmonn/query", qos_profile=MANY_AT_ONCE)
    client.wait_for_service(PATIENCE_S)
    request = Query.Request()
    request.question.text = "what is there?"
    request.question.timeout.sec, request.question.timeout.nanosec = divmod(round(deadline_s * 1e9), 1_000_000_000)
    futures = [client.call_async(request) for _ in range(count)]
    _wait(deadline_s + PATIENCE_S, lambda: all(f.done() for f in futures))
    answers = [answer_from_message(f.result().answer) for f in futures if f.done()]
    latencies = np.array([a.latency_s for a in answers])
    answered_late = sum(not a.error_code and a.latency_s > deadline_s for a in answers)
    return {
        "asked": count,
        "deadline_s": deadline_s,
        "replies": len(answers),
        "late": int((latencies > deadline_s).sum()),
        "answered_late": answered_late,
        "overshoot_s": float(max(0.0, latencies.max() - deadline_s)),
        "codes": _codes(answers),
        "p50_s": float(np.quantile(latencies, 0.5)),
        "p99_s": float(np.quantile(latencies, 0.99)),
    }


def _alone(memory: Any, name: str, rounds: int) -> dict[str, Any]:
    """Over the action, for the time of the first piece of text."""
    from salmonn_node.stream.answers import AnswerType

    answers, firsts = [], []
    choices = ("a chair", "a table") if name == "CHOICE" else ()
    for _ in range(rounds):
        began, pieces = time.monotonic(), []
        answer = memory.ask(
            "what is there?",
            answer_type=AnswerType[name],
            choices=choices,
            timeout_s=PATIENCE_S,
            on_text=lambda _, kept=pieces: kept.append(time.monotonic()),
        )
        answers.append(answer)
        firsts += [pieces[0] - began] if pieces else []
    latencies = [a.latency_s for a in answers]
    return {
        "asked": rounds,
        "codes": _codes(answers),
        "p50_s": float(np.quantile(latencies, 0.5)),
        "p99_s": float(np.quantile(latencies, 0.99)),
        "first_text_p50_s": float(np.quantile(firsts, 0.5)) if firsts else None,
    }


def _codes(answers: list[Any]) -> dict[str, int]:
    return dict(Counter(a.error_code.name if a.error_code else a.outcome.name for a in answers).most_common())


def _listen(node: Any) -> dict[str, str]:
    from diagnostic_msgs.msg import DiagnosticArray

    values: dict[str, str] = {}

    def keep(msg: Any) -> None:
        for status in msg.status:
            if status.name == "salmonn: memory":
                values.update({pair.key: pair.value for pair in status.values})

    node.create_subscription(DiagnosticArray, "/diagnostics", keep, 50)
    return values


def _wait(seconds: float, done: Callable[[], bool]) -> None:
    give_up = time.monotonic() + seconds
    while not done() and time.monotonic() < give_up:
        time.sleep(0.02)
