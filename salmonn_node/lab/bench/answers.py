"""Answer latency benchmark: a burst of questions with short deadlines while sensors send, then each type alone."""

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

SETTLE_S = 5.0  # of stream before the first question, so that the memory is not empty
TYPES = ("TEXT", "BINARY", "POSITION", "TIME", "DURATION", "COUNT", "CHOICE")
LOST = ("queue_full", "encode_failed", "device_failed")
PATIENCE_S = 30.0
LATE, LATE_STEP_S = 10, 0.6  # number of questions about the future, and the time between their deadlines


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Start the real node, send sensor data to it, and ask questions."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    from salmonn_node.client import Memory
    from salmonn_node.live.processes import own_domain, running_node

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
            calls = _Calls(node)
            seconds = SETTLE_S + args.deadline + LATE * LATE_STEP_S + 2.0 * args.rounds * len(TYPES)
            source = [sys.executable, "-m", "salmonn_node.lab.bench.ingest_source", "--compressed"]
            # The threads end in the middle of their work, and rclpy complains about it.
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            with subprocess.Popen([*source, "--seconds", str(seconds)], **quiet) as sensors:
                try:
                    _wait(SETTLE_S, lambda: int(values.get("frames", 0)) >= SETTLE_S - 1)
                    burst = _burst(calls, args.questions, args.deadline)
                    unanswerable = _unanswerable(calls)
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
        "unanswerable": unanswerable,
        "alone": alone,
        "frames": int(values.get("frames", 0)),
        "ingest_lost": lost,
        "sensors_sent_throughout": sending,
        "promise_kept": kept,
    }


def tables(results: dict[str, Any]) -> list[Table]:
    """Make the tables of the burst and of the latency by type."""
    burst = results["burst"]
    table = Table("figure", "value", title=f"{burst['asked']} questions at once, {burst['deadline_s']} s each")
    table.add_row("replies, of them after the deadline", f"{burst['replies']}, {burst['late']}")
    table.add_row("answered after the deadline", str(burst["answered_late"]))
    table.add_row("overshoot at worst", f"{burst['overshoot_s']:.3f} s")
    out = f"{burst['latest_out_s']:.3f} s (of {burst['traced']} calls)" if burst["traced"] else "-"
    table.add_row("last reply out, from receipt to sending", out)
    table.add_row("refused BUSY after, p50 / worst", f"{burst['busy_p50_s']:.3f} / {burst['busy_worst_s']:.3f} s")
    table.add_row("codes", ", ".join(f"{code} {count}" for code, count in burst["codes"].items()))
    table.add_row("latency p50 / p99", f"{burst['p50_s']:.3f} / {burst['p99_s']:.3f} s")
    lost = ", ".join(f"{reason} {count}" for reason, count in results["ingest_lost"].items())
    table.add_row(f"observations lost beside {results['frames']} frames", lost)
    table.add_row("promise kept", "yes" if results["promise_kept"] else "no")
    ahead = results["unanswerable"]
    codes = ", ".join(f"{code} {count}" for code, count in ahead["codes"].items())
    table.add_row(f"{ahead['asked']} about the future, deadlines {LATE_STEP_S} s apart", codes)
    early = f"{1e3 * ahead['early_p50_s']:.1f} / {1e3 * ahead['early_worst_s']:.1f} ms (of {ahead['traced']} calls)"
    table.add_row("their replies leave before the deadline by, p50 / least", early)
    types = Table(title="one at a time, while sensors send")
    for column in ("type", "asked", "codes", "p50 s", "p99 s", "first text p50 s"):
        types.add_column(column)
    for name, one in results["alone"].items():
        codes = ", ".join(f"{code} {count}" for code, count in one["codes"].items())
        first = "-" if one["first_text_p50_s"] is None else f"{one['first_text_p50_s']:.3f}"
        types.add_row(name, str(one["asked"]), codes, f"{one['p50_s']:.3f}", f"{one['p99_s']:.3f}", first)
    return [table, types]


class _Calls:
    """Client of the query service. The middleware's trace tells when a request arrived and its reply left."""

    def __init__(self, node: Any) -> None:
        from salmonn_interfaces.srv import Query
        from salmonn_node.client.qos import MANY_AT_ONCE

        self._client = node.create_client(Query, "salmonn/query", qos_profile=MANY_AT_ONCE)
        self._client.wait_for_service(PATIENCE_S)
        self._events: dict[int, dict[int, float]] = {}
        topic = "salmonn/query/_service_event"
        node.create_subscription(Query.Event, topic, self._note, MANY_AT_ONCE)
        _wait(PATIENCE_S, lambda: node.count_publishers(topic) > 0)
        _wait(1.0, lambda: False)  # after discovery, the two sides need a moment before messages arrive

    def _note(self, event: Any) -> None:
        at_s = event.info.stamp.sec + 1e-9 * event.info.stamp.nanosec
        self._events.setdefault(event.info.sequence_number, {})[event.info.event_type] = at_s

    def ask(self, requests: list[Any], deadline_s: float) -> tuple[list[Any], list[float]]:
        """Send all requests at once. Return the answers, and seconds from receipt to reply where traced."""
        from service_msgs.msg import ServiceEventInfo

        from salmonn_node.messages import answer_from_message

        self._events.clear()
        futures = [self._client.call_async(request) for request in requests]
        _wait(deadline_s + PATIENCE_S, lambda: all(f.done() for f in futures))
        _wait(1.0, lambda: sum(len(call) == 2 for call in list(self._events.values())) >= len(requests))
        received, sent = ServiceEventInfo.REQUEST_RECEIVED, ServiceEventInfo.RESPONSE_SENT
        calls = [call for _, call in sorted(self._events.items()) if len(call) == 2]
        answers = [answer_from_message(f.result().answer) for f in futures if f.done()]
        return answers, [call[sent] - call[received] for call in calls]


def _request(deadline_s: float, ahead_s: float = 0.0) -> Any:
    """Make a question with this deadline, about a window that ends `ahead_s` in the future (0: now)."""
    from salmonn_interfaces.srv import Query

    request = Query.Request()
    request.question.text = "what is there?"
    request.question.timeout.sec, request.question.timeout.nanosec = divmod(round(deadline_s * 1e9), 1_000_000_000)
    if ahead_s:
        request.question.before.sec = int(time.time() + ahead_s)
    return request


def _unanswerable(calls: _Calls) -> dict[str, Any]:
    """Ask about the future. Each reply is TIMEOUT; measure how long before its deadline it leaves."""
    deadlines_s = [LATE_STEP_S * (1 + n) for n in range(LATE)]
    answers, out_s = calls.ask([_request(s, ahead_s=1e6) for s in deadlines_s], deadlines_s[-1])
    before_s = [deadline - out for deadline, out in zip(deadlines_s, out_s, strict=False)]
    return {
        "asked": LATE,
        "traced": len(out_s),
        "codes": _codes(answers),
        "early_p50_s": float(np.quantile(before_s or [0.0], 0.5)),
        "early_worst_s": min(before_s, default=0.0),
    }


def _burst(calls: _Calls, count: int, deadline_s: float) -> dict[str, Any]:
    """Send all questions at once over the service. Latency is measured by the node, from receipt to reply."""
    from salmonn_node.stream.answers import ErrorCode

    answers, out_s = calls.ask([_request(deadline_s) for _ in range(count)], deadline_s)
    latencies = np.array([a.latency_s for a in answers])
    busy = np.array([a.latency_s for a in answers if a.error_code == ErrorCode.BUSY] or [0.0])
    answered_late = sum(not a.error_code and a.latency_s > deadline_s for a in answers)
    return {
        "asked": count,
        "deadline_s": deadline_s,
        "replies": len(answers),
        "late": int((latencies > deadline_s).sum()),
        "answered_late": answered_late,
        "overshoot_s": float(max(0.0, latencies.max() - deadline_s)),
        "traced": len(out_s),
        "latest_out_s": max(out_s, default=0.0),
        "busy_p50_s": float(np.quantile(busy, 0.5)),
        "busy_worst_s": float(busy.max()),
        "codes": _codes(answers),
        "p50_s": float(np.quantile(latencies, 0.5)),
        "p99_s": float(np.quantile(latencies, 0.99)),
    }


def _alone(memory: Any, name: str, rounds: int) -> dict[str, Any]:
    """Ask over the action, to measure the time of the first piece of text."""
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
