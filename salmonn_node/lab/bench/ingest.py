"""Ingest benchmark: send a 30 Hz camera and 20 ms chunks of sound to the real node over DDS, and time its callbacks."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

TARGET_CALLBACK_P99_MS = 2.0
PROFILE = Path(__file__).parents[3] / "config" / "fastdds_camera.xml"
SOURCES = ("camera", "microphone", "pose")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run once per transport. Return figures by transport."""
    transports = ("raw", "compressed") if args.transport == "both" else (args.transport,)
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    return {transport: _run_one(transport, args.seconds) for transport in transports}


def tables(results: dict[str, Any]) -> list[Table]:
    """One table: a row for each transport and input."""
    table = Table(title="ingest: sent, received, used, dropped")
    times_of = ("callback p50 / p99 ms", "its own work p99 ms")
    for column in ("transport", "input", "sent", "received", "used", "dropped by reason", *times_of):
        table.add_column(column)
    for transport, figures in results.items():
        for name, one in figures["inputs"].items():
            dropped = ", ".join(f"{reason} {count}" for reason, count in one["dropped"].items()) or "-"
            times = f"{one['callback_p50_ms']:.3f} / {one['callback_p99_ms']:.3f}"
            counts = (str(one[count]) for count in ("sent", "received", "used"))
            table.add_row(transport, name, *counts, dropped, times, f"{one['callback_cpu_p99_ms']:.3f}")
    cost = Table(title="cost on this machine")
    for column in ("transport", "CPU share of one core", "encode p50 ms", "sender at most late ms", "target met"):
        cost.add_column(column)
    for transport, figures in results.items():
        met = "yes" if figures["target_met"] else "no"
        share = f"{100 * figures['cpu_share']:.0f} %"
        cost.add_row(transport, share, f"{figures['encode_p50_ms']:.1f}", str(figures["sender_late_ms"]), met)
    return [table, cost]


def _run_one(transport: str, seconds: float) -> dict[str, Any]:
    import rclpy

    from salmonn_node.client import Memory

    with tempfile.TemporaryDirectory() as folder, _node(transport, Path(folder)) as process:
        rclpy.init()
        node = rclpy.create_node("ingest_bench")
        try:
            values = _listen(node)
            Memory(node).startup(180.0)
            cpu_s, began = _cpu_s(process.pid), time.monotonic()
            sent = _send(transport, seconds)
            wall_s = time.monotonic() - began
            cpu_s = _cpu_s(process.pid) - cpu_s
            _spin_until_steady(node, values)
            inputs = {name: _figures(values[f"salmonn: input {name}"], sent[name]) for name in SOURCES}
            memory = values["salmonn: memory"]
        finally:
            node.destroy_node()
            rclpy.try_shutdown()
    by_design = all(set(one["dropped"]) <= {"not_sampled"} for one in inputs.values())
    quick = all(one["callback_p99_ms"] < TARGET_CALLBACK_P99_MS for one in inputs.values())
    whole = all(one["received"] == one["sent"] for one in inputs.values())
    return {
        "seconds": seconds,
        "inputs": inputs,
        "cpu_share": cpu_s / wall_s,
        "encode_p50_ms": float(memory["encode_p50_ms"]),
        "sender_late_ms": sent["late_ms"],
        "target_met": by_design and quick and whole,
    }


def _figures(values: dict[str, str], sent: int) -> dict[str, Any]:
    dropped = {key.removeprefix("dropped."): int(v) for key, v in values.items() if key.startswith("dropped.")}
    return {
        "sent": sent,
        "received": int(values["received"]),
        "used": int(values["queued"]),
        "dropped": dropped,
        "missing_share": float(values["missing_share"]),
        "callback_p50_ms": float(values["callback_p50_ms"]),
        "callback_p99_ms": float(values["callback_p99_ms"]),
        "callback_cpu_p99_ms": float(values["callback_cpu_p99_ms"]),
    }


@contextlib.contextmanager
def _node(transport: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The node as `ros2 run` starts it, with its own logs in `folder`; ended with SIGINT."""
    parameters = {"image_transport": transport, "persistence": "false", "threads": "1", "diagnostics_period_s": "0.5"}
    command = [sys.executable, "-m", "salmonn_node.ros.node", "--ros-args"]
    command += [item for name, value in parameters.items() for item in ("-p", f"{name}:={value}")]
    with (folder / "node.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _send(transport: str, seconds: float) -> dict[str, int]:
    command = [sys.executable, "-m", "salmonn_node.lab.bench.ingest_source", "--seconds", str(seconds)]
    environment = dict(os.environ)
    if transport == "compressed":
        command.append("--compressed")
    else:
        environment["FASTRTPS_DEFAULT_PROFILES_FILE"] = environment["FASTDDS_DEFAULT_PROFILES_FILE"] = str(PROFILE)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds + 60, check=True)
    pairs = (line.split() for line in done.stdout.splitlines())
    return {name: int(count) for name, count in pairs}


def _listen(node: Any) -> dict[str, dict[str, str]]:
    from diagnostic_msgs.msg import DiagnosticArray

    values: dict[str, dict[str, str]] = {}

    def keep(msg: Any) -> None:
        for status in msg.status:
            values[status.name] = {pair.key: pair.value for pair in status.values}

    node.create_subscription(DiagnosticArray, "/diagnostics", keep, 50)
    return values


def _spin_until_steady(node: Any, values: dict[str, dict[str, str]]) -> None:
    """Until two diagnostics in a row have counted the same: everything has arrived."""
    import rclpy

    before, same, deadline = None, 0, time.monotonic() + 30.0
    while same < 3 and time.monotonic() < deadline:
        end = time.monotonic() + 0.6
        while time.monotonic() < end:
            rclpy.spin_once(node, timeout_sec=0.1, executor=node.executor)
        now = [values.get(f"salmonn: input {name}", {}).get("received") for name in SOURCES]
        same, before = (same + 1, now) if now == before and now[0] is not None else (0, now)


def _cpu_s(pid: int) -> float:
    """User and system time of a process so far, from /proc (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
