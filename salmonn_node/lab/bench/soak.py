"""Soak test with faults: kill and stop the real node, fill its disk and send it bad input, while planners ask.

The test passes if nothing crashed and no reply was lost. The memory of each stored session must equal that of an
uninterrupted run over the same pictures, sound and poses, bit for bit. Resident memory and open files must not grow
within one life of the process.
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

from salmonn_node.lab.bench.soak_results import WARM, judge, tables

__all__ = ["run", "tables"]

CLOCK_STEPS = 6
STALL_S = 0.05
BAD_TRANSITIONS = (0, 1, 3, 8, 10, 11, 12, 77, 255)  # none is valid for an active node

PLANNER = """
import sys, threading, rclpy
from salmonn_node.lab.bench.soak_planner import Planner
rclpy.init()
Planner(rclpy.create_node("passer_by"), sys.argv[1], int(sys.argv[2]), threading.Event()).run()
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
        from salmonn_node.lab.bench.soak_planner import Planner
        from salmonn_node.lab.bench.soak_robot import NAME, NodeUnderTest

        self._args = args
        self._chance = random.Random(args.seed)
        self._environment = {**os.environ, "ROS_DOMAIN_ID": str(node.context.get_domain_id())}
        self._robot = NodeUnderTest(node, folder, self._environment)
        self._stop = threading.Event()
        self._planners = [Planner(node, NAME, seed, self._stop) for seed in range(args.planners)]
        self._counts: Counter[str] = Counter()
        self._problems: list[str] = []
        self._stalls: list[tuple[float, float]] = []

    def run(self) -> dict[str, Any]:
        robot = self._robot
        faults = [self._malformed, self._transitions, self._clock, self._passer_by, self._freeze, self._full_disk]
        began = time.monotonic()
        threading.Thread(target=self._note_stalls, daemon=True).start()
        try:
            robot.start()
            for planner in self._planners:
                planner.start()
            robot.feed(WARM)
            while time.monotonic() - began < 60 * self._args.minutes or not self._counts["clock_reset"]:
                self._chance.shuffle(faults)
                for fault in faults:
                    self._counts[fault.__name__.strip("_")] += 1
                    fault()
                    robot.feed(3)
                    if not robot.alive():
                        raise RuntimeError(f"the node ended after {fault.__name__.strip('_')}")
                    self._look()
                if self._chance.random() < self._args.kill_share or not self._counts["kill"]:
                    self._counts["kill"] += 1
                    self._kill()
                if self._chance.random() < self._args.reset_share or not self._counts["clock_reset"]:
                    self._counts["clock_reset"] += 1
                    robot.begin_session(100.0)
                    robot.feed(3)
        except Exception as error:
            self._problems.append(f"{type(error).__name__}: {error}")
        self._stop.set()
        for planner in self._planners:
            if planner.ident is not None:
                planner.join(60.0)
        return judge(self._robot, self._planners, self._counts, self._problems, self._stalls, time.monotonic() - began)

    def _note_stalls(self) -> None:
        """Note when this process gets no processor: on a loaded machine a reply may be late for that reason alone."""
        while not self._stop.is_set():
            began = time.monotonic()
            time.sleep(STALL_S)
            late = time.monotonic() - began - STALL_S
            if late > STALL_S:
                self._stalls.append((time.monotonic(), late))

    def _look(self) -> None:
        """Note how many snapshots and sessions are on disk, and the number of the newest snapshot."""
        info, counts = self._robot.info(), self._counts
        counts["snapshots kept at most"] = max(counts["snapshots kept at most"], info.snapshots)
        sessions = sum("-session-" in name for name in info.stored)
        counts["sessions kept at most"] = max(counts["sessions kept at most"], sessions)
        numbers = [int(path.name) for path in (self._robot.memories / "default" / "snapshots").glob("[0-9]*")]
        counts["snapshots written"] = max([counts["snapshots written"], *numbers])

    # -- faults ---------------------------------------------------------------------------------------------------

    def _kill(self) -> None:
        began = time.monotonic()
        self._robot.send_pictures(self._chance.randrange(6))  # it dies while it observes
        time.sleep(self._chance.uniform(0.0, 0.2))
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
        """Step the clock ahead, then back by small steps, which must be told and must begin no session."""
        from salmonn_node.lab.bench.soak_robot import wait

        robot = self._robot
        session = robot.info().status.session
        robot.ahead_s += self._chance.uniform(0.0, 5.0)
        robot.feed(1)
        before = robot.clock_steps()
        for _ in range(CLOCK_STEPS):
            robot.ahead_s -= 1e-3 * self._args.clock_back_ms
            robot.tick()
            robot.info()  # a /clock that nobody reads in time is replaced by the next one
        if self._args.clock_back_ms:
            wait(lambda: robot.clock_steps() > before, "the small steps of the clock are told")
            self._counts["clock steps back"] += CLOCK_STEPS
        if robot.info().status.session != session:
            self._problems.append("a small step of the clock began a session")

    def _malformed(self) -> None:
        from salmonn_node.client import ErrorCode
        from salmonn_node.lab.bench import soak_stream

        robot = self._robot
        now, heard = robot.sent, robot.sent * soak_stream.RATE_HZ
        bad: list[Any] = [soak_stream.picture(now, **change) for change in soak_stream.BAD_PICTURES]
        bad += [soak_stream.sound(heard, heard + 160, **change) for change in soak_stream.BAD_SOUNDS]
        bad += [soak_stream.pose(now, **change) for change in soak_stream.BAD_POSES]
        robot.send_malformed([bad[number % len(bad)] for number in range(self._args.flood)])
        for arguments in ({"sources": ["nobody"]}, {"choices": ["x"]}, {"before_ns": -1}):
            answer = robot.client.ask("x?", timeout_s=30.0, **arguments)  # type: ignore[arg-type]
            if answer.error_code not in (ErrorCode.INVALID_REQUEST, ErrorCode.BUSY):
                self._problems.append(f"a malformed question was answered {answer.error_code.name}")
        self._counts["malformed messages"] += self._args.flood

    def _transitions(self) -> None:
        for transition in BAD_TRANSITIONS:
            if self._robot.client.change_state(transition, 30.0) is not False:
                self._problems.append(f"transition {transition} of an active node was not refused")
        self._counts["bad transitions"] += len(BAD_TRANSITIONS)

    def _passer_by(self) -> None:
        from salmonn_node.lab.bench.soak_robot import NAME

        seed = str(self._chance.randrange(10**6))
        command, quiet = [sys.executable, "-c", PLANNER, NAME, seed], subprocess.DEVNULL
        planner = subprocess.Popen(command, stdout=quiet, stderr=quiet, env=self._environment)
        self._robot.feed(self._chance.randrange(2, 6))
        planner.kill()
        planner.wait()
