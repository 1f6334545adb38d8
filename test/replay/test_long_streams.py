"""Long recordings: the memory stays at its budget, and the figures are printed. No wall-clock time is asserted."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from replay.bags import START_NS, write_bag

from salmonn_node.evaluation.questions import EvidenceInterval, Expected, QuestionRecord
from salmonn_node.model.network_settings import NetworkSettings
from salmonn_node.replay.job import Job, JobSettings, run_job
from salmonn_node.replay.network import build
from salmonn_node.replay.runner import ReplayRun
from salmonn_node.replay.summary import Finished, write_report, write_scores
from salmonn_node.stream.observations import SECOND_NS, AudioChunk, Frame, Pose

HOURS_S = 3 * 3600


def record(name: str, second: float, evidence_s: float) -> QuestionRecord:
    at = START_NS + round(evidence_s * SECOND_NS)
    return QuestionRecord(
        id=name,
        ask_ns=START_NS + round(second * SECOND_NS),
        text="Was there a light room?",
        answer_type="BINARY",
        expected=Expected(binary=True),
        evidence=(EvidenceInterval(start_ns=at, end_ns=at + SECOND_NS),),
        stream_s=second,
    )


@pytest.mark.timeout(600)
def test_ten_minutes_of_a_bag_stay_within_the_budget(tmp_path):
    bag = write_bag(tmp_path / "walk", seconds=600)
    questions = (record("first", 300.2, 10.0), record("last", 599.2, 10.0))
    result = run_job(Job(bag, questions, JobSettings(), tmp_path / "out"))
    assert not result.error
    assert result.facts["frames"] == 600
    assert result.facts["audio_s"] == pytest.approx(600, abs=0.1)
    for kept, budget in zip(result.facts["tokens"], result.facts["budgets"], strict=True):
        assert 0 < kept <= 2 * budget
    assert len(result.answers) == 2
    print(f"\n10 minutes of a bag at {result.facts['speed']:.0f} times real time")


def hours() -> Iterator[tuple[int, object]]:
    """Three hours at one frame a second: a slow patrol past changing things, with a hum; observations, not a bag."""
    generator = np.random.default_rng(0)
    room = generator.integers(0, 255, (12, 96, 160, 3), dtype=np.uint8)
    hum = (0.05 * np.sin(np.arange(16_000) * 0.05)).astype(np.float32)[:, None]
    for second in range(HOURS_S):
        stamp = START_NS + second * SECOND_NS
        image = np.roll(room[second // 60 % 12], second % 160, axis=1).copy()
        x, y = generator.integers(0, 60, 2)
        image[y : y + 30, x : x + 30] = generator.integers(0, 255, 3)
        where = np.array([second * 0.01, 0.0, 0.0])
        yield stamp, Pose(stamp, "map", where, np.array([0.0, 0.0, 0.0, 1.0]))
        yield stamp, Frame(stamp, "front", image, "optical")
        yield stamp, AudioChunk(stamp, "mic", hum, 16_000, "mic")


@pytest.mark.full
@pytest.mark.timeout(3_600)
def test_three_hours_at_constant_memory():
    observer, answerer = build(NetworkSettings(), "default", 1.0)
    questions = [record(f"q{k}", 600.0 * k, 300.0) for k in range(1, 18)]
    run = ReplayRun(observer, answerer, questions)
    sizes: list[int] = []
    answers = []
    for answered in run.run(hours()):
        answers.append(answered)
        sizes.append(observer.memory.nbytes)
    status = observer.status()
    assert len(answers) == len(questions)
    assert status.frames == HOURS_S
    full = sizes[len(sizes) // 3 :]  # the budgets are full by then
    assert max(full) <= 1.3 * min(full)
    print(
        f"\n3 hours in {run.ingest_s:.0f} s: {HOURS_S / run.ingest_s:.0f} times real time, "
        f"memory {min(full) / 1e6:.2f} to {max(full) / 1e6:.2f} MB, {status.tokens} of {status.budgets} tokens, "
        f"slowest answer {max(run.timings.values()):.2f} s"
    )


@pytest.mark.full
def test_the_report_opens_in_a_browser_without_errors(tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert browser, "this test needs chromium"
    bag = write_bag(tmp_path / "walk", seconds=20)
    job = Job(bag, (record("q", 12.2, 3.0),), JobSettings(), tmp_path / "out")
    finished = [Finished(job, run_job(job))]
    write_report(tmp_path, finished, write_scores(tmp_path, finished), "Replay of walk")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--no-first-run", f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr"]
    command += ["--virtual-time-budget=8000", "--window-size=1200,2400", f"--screenshot={tmp_path / 'page.png'}"]
    done = subprocess.run(
        [*command, (tmp_path / "report.html").as_uri()], capture_output=True, text=True, timeout=120, check=False
    )
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not console, console
    assert (tmp_path / "page.png").stat().st_size > 20_000


@contextlib.contextmanager
def cluster_of_two(log: Path, environment: dict[str, str]) -> Iterator[str]:
    """A Ray cluster of two workers on this machine, ended with its own process; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--num-cpus=2", f"--port={port}"]
    command += ["--node-ip-address=127.0.0.1", "--include-dashboard=false"]
    with log.open("wb") as out:
        cluster = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
    try:
        deadline = time.monotonic() + 120.0
        while "runtime started" not in log.read_text():
            assert cluster.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        cluster.terminate()
        cluster.wait(60)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_fleet_over_ray_gives_the_same_answers(tmp_path):
    """As a user runs it: the command is the driver, in a process of its own."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("not shown here: Ray is not installed (extra `ray`)")
    root, bags = Path(__file__).parents[2], [write_bag(tmp_path / name, seconds=6) for name in ("one", "two")]
    questions = tmp_path / "questions.jsonl"
    questions.write_text(record("q", 4.2, 1.0).model_dump_json() + "\n")
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    # Newer versions of Ray let nobody in without a token; cluster and driver share one that is made for this test.
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}

    def replay(out: Path, *options: str) -> list[bytes]:
        command = [sys.executable, "-m", "salmonn_node.cli", "replay", *map(str, bags), "--questions", str(questions)]
        command += ["--output", str(out), *options]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stdout + done.stderr
        return [(out / "default" / bag.name / "answers.jsonl").read_bytes() for bag in bags]

    with cluster_of_two(tmp_path / "ray.log", environment) as address:
        spread = replay(tmp_path / "spread", "--ray", address)
    assert spread == replay(tmp_path / "here")
    assert all(spread)
