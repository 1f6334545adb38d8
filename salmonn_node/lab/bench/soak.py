"""Soak test with faults: kill and stop the real node, fill its disk and send it bad input, while planners ask.

The test passes if nothing crashed and no reply was lost. Memory and disk must equal those of an uninterrupted run over
the same pictures, bit for bit. Resident memory and open files must not grow within one life of the process.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.table import Table

RSS_SLACK_BYTES, FD_SLACK = 64 << 20, 16
WARM = 5  # warm-up samples of a life; later samples must not grow
BAD_TRANSITIONS = (0, 1, 3, 8, 10, 11, 12, 77, 255)  # none is valid for an active node

PLANNER = """
import sys, threading, rclpy
from salmonn_node.lab.bench.soak_robot import Planner
rclpy.init()
Planner(rclpy.create_node("passer_by"), int(sys.argv[1]), threading.Event()).run()
"""


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run the campaign for `args.minutes`. `passed` says whether all conditions hold."""
    from salmonn_node.live.processes import free_domain, spun_node

    with tempfile.TemporaryDirectory() as temporary, spun_node("soak", free_domain()) as node:
        folder = args.directory or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        return _Campaign(node, folder, args).run()


class _Campaign:
    def __init__(self, node: Any, folder: Path, args: argparse.Namespace) -> None:
        from salmonn_node.lab.bench.soak_robot import NodeUnderTest, Planner

        self._args = args
        self._chance = random.Random(args.seed)
        self._environment = {**os.environ, "ROS_DOMAIN_ID": str(node.context.get_domain_id())}
        self._robot = NodeUnderTest(node, folder, self._environment)
        self._stop = threading.Event()
        self._planners = [Planner(node, seed, self._stop) for seed in range(args.planners)]
        self._counts: Counter[str] = Counter()
        self._problems: list[str] = []

    def run(self) -> dict[str, Any]:
        robot = self._robot
        faults = [self._malformed, self._transitions, self._clock, self._passer_by, self._freeze, self._full_disk]
        began = time.monotonic()
        try:
            robot.start()
            for planner in self._planners:
                planner.start()
            robot.feed(WARM)
            while time.monotonic() - began < 60 * self._args.minutes or not self._counts["kill"]:
                self._chance.shuffle(faults)
                for fault in faults:
                    self._counts[fault.__name__.strip("_")] += 1
                    fault()
                    robot.feed(3)
                    if not robot.alive():
                        raise RuntimeError(f"the node ended after {fault.__name__.strip('_')}")
                    self._counts["snapshots kept at most"] = max(
                        self._counts["snapshots kept at most"], robot.info().snapshots
                    )
                if self._chance.random() < self._args.kill_share or not self._counts["kill"]:
                    self._counts["kill"] += 1
                    self._kill()
        except Exception as error:
            self._problems.append(f"{type(error).__name__}: {error}")
        self._stop.set()
        for planner in self._planners:
            if planner.ident is not None:
                planner.join(60.0)
        return self._results(time.monotonic() - began)

    # -- faults ---------------------------------------------------------------------------------------------------

    def _kill(self) -> None:
        began = time.monotonic()
        try:
            self._robot.end(signal.SIGKILL)
            self._robot.start()
            self._robot.feed(1)
        finally:
            self._robot.disturbed.append((began, time.monotonic()))

    def _freeze(self) -> None:
        began = time.monotonic()
        assert self._robot.process is not None
        self._robot.process.send_signal(signal.SIGSTOP)
        time.sleep(self._chance.uniform(0.5, 3.0))
        self._robot.process.send_signal(signal.SIGCONT)
        self._robot.feed(1)
        self._robot.disturbed.append((began, time.monotonic()))

    def _full_disk(self) -> None:
        from salmonn_node.lab.bench.soak_robot import FULL_BYTES, wait

        self._robot.limit_files(FULL_BYTES)
        self._robot.feed(5)
        told = self._robot.info().status.persistence != "on"
        self._counts["full disk told"] += told
        self._robot.limit_files(-1)

        def stored() -> bool:
            self._robot.feed(1)  # the store retries when there is something to write
            return bool(self._robot.info().status.persistence == "on")

        wait(stored, "the memory is stored again after the disk was freed")

    def _clock(self) -> None:
        for ahead_s in (0.0, 5.0, 60.0):
            self._robot.tick(ahead_s)
        if self._args.clock_back_ms:
            self._robot.tick(60.0 - 1e-3 * self._args.clock_back_ms)

    def _malformed(self) -> None:
        from salmonn_node.client import ErrorCode
        from salmonn_node.lab.bench.soak_robot import picture

        bad: tuple[dict[str, Any], ...] = ({"step": 1}, {"encoding": "smoke"}, {"height": 2**31}, {"width": 0})
        for number in range(self._args.flood):
            self._robot.send(picture(self._robot.sent, **bad[number % len(bad)]))
        for arguments in ({"sources": ["nobody"]}, {"choices": ["x"]}, {"before_ns": -1}):
            answer = self._robot.client.ask("x?", timeout_s=30.0, **arguments)  # type: ignore[arg-type]
            if answer.error_code not in (ErrorCode.INVALID_REQUEST, ErrorCode.BUSY):
                self._problems.append(f"a malformed question was answered {answer.error_code.name}")
        self._counts["malformed messages"] += self._args.flood

    def _transitions(self) -> None:
        for transition in BAD_TRANSITIONS:
            if self._robot.client.change_state(transition, 30.0) is not False:
                self._problems.append(f"transition {transition} of an active node was not refused")
        self._counts["bad transitions"] += len(BAD_TRANSITIONS)

    def _passer_by(self) -> None:
        seed = str(self._chance.randrange(10**6))
        command, quiet = [sys.executable, "-c", PLANNER, seed], subprocess.DEVNULL
        planner = subprocess.Popen(command, stdout=quiet, stderr=quiet, env=self._environment)
        self._robot.feed(self._chance.randrange(2, 6))
        planner.kill()
        planner.wait()

    # -- judgement ------------------------------------------------------------------------------------------------

    def _results(self, seconds: float) -> dict[str, Any]:
        robot = self._robot
        crashes = 0 if robot.alive() else 1
        status = robot.end(signal.SIGINT) if robot.alive() else robot.process.returncode if robot.process else None
        lost = sum(not self._excused(span) for planner in self._planners for span in planner.silent)
        replies = sum((planner.ends for planner in self._planners), Counter())
        equal = not crashes and _equal_to_uninterrupted(robot.memories, robot.sent)
        growth = [life_growth(samples) for samples in robot.samples if len(samples) > 2 * WARM]
        rss, fds = max((g[0] for g in growth), default=0), max((g[1] for g in growth), default=0)
        flat = rss <= RSS_SLACK_BYTES and fds <= FD_SLACK
        told = self._counts["full disk told"] == self._counts["full_disk"]
        passed = not (crashes or status or lost or self._problems) and equal and flat and told
        return {
            "minutes": seconds / 60,
            "lives": robot.lives,
            "pictures": robot.sent,
            "faults": dict(self._counts),
            "replies": dict(replies),
            "crashes": crashes,
            "exit_status": status,
            "replies_lost": lost,
            "memory_equal": equal,
            "full_disk_always_told": told,
            "rss_growth_bytes": rss,
            "open_files_growth": fds,
            "problems": self._problems,
            "passed": passed,
        }

    def _excused(self, span: tuple[float, float]) -> bool:
        return any(began <= span[1] and span[0] <= ended for began, ended in self._robot.disturbed)


def life_growth(samples: list[tuple[int, int]]) -> tuple[int, int]:
    """Growth in a life of the process: median of the last samples minus median of the first ones after warm-up."""
    first, last = samples[WARM : 2 * WARM], samples[-WARM:]
    middle = WARM // 2
    return tuple(sorted(s[i] for s in last)[middle] - sorted(s[i] for s in first)[middle] for i in (0, 1))  # type: ignore[return-value]


def _equal_to_uninterrupted(memories: Path, pictures: int) -> bool:
    """Whether the stored memory equals, bit for bit, that of one run over the same pictures."""
    import torch

    from salmonn_node.lab.bench.soak_robot import CAMERA, picture
    from salmonn_node.messages import image_frame
    from salmonn_node.runtime.build import assemble, build_backend, load_model
    from salmonn_node.runtime.settings import Settings

    settings = Settings(memory_directory=memories, threads=1)
    backend = build_backend(settings)
    try:
        stored, _ = backend.observer.memory.to_tensors()
        observer, _ = assemble(load_model(settings), settings, inline=True)
        for number in range(pictures):
            observer.submit(image_frame(picture(number), CAMERA))
        again, _ = observer.memory.to_tensors()
    finally:
        backend.close()
        backend.free()
    return stored.keys() == again.keys() and all(torch.equal(stored[name], again[name]) for name in stored)


def tables(results: dict[str, Any]) -> list[Table]:
    """Make tables of the faults injected and of the conditions checked."""
    done = Table("fault", "times", title=f"{results['minutes']:.1f} minutes, {results['pictures']} pictures")
    for name, count in sorted(results["faults"].items()):
        done.add_row(name.replace("_", " "), str(count))
    held = Table("figure", "value", "wanted", title="passed" if results["passed"] else "FAILED")
    held.add_row("crashes", str(results["crashes"]), "0")
    held.add_row("exit status after SIGINT", str(results["exit_status"]), "0")
    held.add_row("replies", ", ".join(f"{code} {count}" for code, count in sorted(results["replies"].items())), "")
    held.add_row("replies lost", str(results["replies_lost"]), "0")
    held.add_row("memory equal to an uninterrupted run", str(results["memory_equal"]), "True")
    held.add_row("each full disk told", str(results["full_disk_always_told"]), "True")
    held.add_row("resident memory grew by", f"{results['rss_growth_bytes'] / 2**20:.1f} MiB", "64 MiB at most")
    held.add_row("open files grew by", str(results["open_files_growth"]), f"{FD_SLACK} at most")
    for problem in results["problems"]:
        held.add_row("problem", problem, "")
    return [done, held]
