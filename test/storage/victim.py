"""Processes that observe until they are killed at a random moment, forked from one that has loaded everything.

Run as `python -m storage.victim DIRECTORY KILLS SEED`, with test/ on the path. Each victim restores what the one
before it left, compares it bit for bit with what an uninterrupted process had at the same observation, and goes on
until SIGKILL. The last line of the output is JSON: kills, losses in seconds of stream, mismatches.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import select
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
from storage.robot import START_NS, STEP_NS, Robot, fingerprint, step

from salmonn_node.ingest.observer import Observer
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.stream.observations import SAMPLE_RATE_HZ, SECOND_NS, AudioChunk, Frame

STEPS = 24  # 12 s of stream; then a new memory is begun
SNAPSHOT_S = 0.15
PATIENCE_S = 120.0


def digest(observer: Observer) -> str:
    """Of everything that must come back bit for bit."""
    total = hashlib.sha256()
    for name, value in sorted(fingerprint(observer).items()):
        total.update(name.encode())
        total.update(value if isinstance(value, bytes) else repr(value).encode())
    return total.hexdigest()


def place(observer: Observer) -> str:
    """Which observation of the stream was the last."""
    intake = observer.intake
    return f"{intake.frames} {round(intake.audio_s, 3)} {intake.poses}"


def reference(model: VideoSalmonnS) -> dict[str, str]:
    """Digest of an uninterrupted observer after each of its observations."""
    found: dict[str, str] = {}
    observer = Observer(model, inline=True)

    def note(_: object) -> None:
        found[place(observer)] = digest(observer)

    note(None)
    observer.record_to(note)
    for n in range(STEPS):
        for observation in step(n):
            observer.submit(observation)
            note(None)
    return found


def observe(root: Path, model: VideoSalmonnS, out: int) -> None:
    """A victim: restore, say what was restored, observe and say what was submitted, until the end of the stream."""
    robot = Robot(root, model, inline=False, period_s=SNAPSHOT_S, sync_period_s=0.5)
    report = {"place": place(robot.observer), "digest": digest(robot.observer), "notes": robot.report.notes,
              "newest_ns": robot.persistence.newest_ns, "snapshot": robot.report.snapshot}  # fmt: skip
    os.write(out, (json.dumps(report) + "\n").encode())
    begun = robot.observer.intake.poses  # a step begins with its pose
    for n in range(max(0, begun - 1), STEPS):
        os.write(out, (json.dumps({"submitted_ns": step(n)[0].stamp_ns}) + "\n").encode())
        for observation in rest_of_step(robot, n) if n < begun else step(n):
            robot.observer.submit(observation)
        robot.observer.drain()
    os.write(out, b'{"end": true}\n')
    time.sleep(PATIENCE_S)


def rest_of_step(robot: Robot, n: int) -> list[AudioChunk | Frame]:
    """What the one before did not take in of step `n`; the sampler refuses a picture that it did."""
    _, sound, picture = step(n)
    heard = round(robot.observer.intake.audio_s * SAMPLE_RATE_HZ) - n * len(sound.samples)
    late_ns = heard * SECOND_NS // SAMPLE_RATE_HZ
    rest = AudioChunk(sound.stamp_ns + late_ns, sound.source, sound.samples[heard:])
    return [rest, picture] if len(rest.samples) else [picture]


def forked(work: object) -> tuple[int, int]:
    """Run `work(out)` in a child; returns its pid and the end from which to read."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        try:
            work(write_end)  # type: ignore[operator]
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(write_end)
    return pid, read_end


def read_lines(end: int, until_s: float, buffer: bytearray) -> tuple[list[dict], bool]:
    """What the child wrote until `until_s` (time.monotonic); True when it ended."""
    while (left := until_s - time.monotonic()) > 0:
        ready, _, _ = select.select([end], [], [], left)
        if ready:
            data = os.read(end, 1 << 16)
            if not data:
                return _lines(buffer), True
            buffer += data
            if buffer.count(b"\n"):
                break
    return _lines(buffer), False


def _lines(buffer: bytearray) -> list[dict]:
    *whole, rest = bytes(buffer).split(b"\n")
    buffer[:] = rest
    return [json.loads(line) for line in whole if line]


def main(directory: Path, kills: int, seed: int) -> int:
    """Kill `kills` victims; 0 when every one of them came back whole."""
    torch.set_num_threads(1)
    chance = random.Random(seed)
    model = VideoSalmonnS.tiny(seed=1)

    def write_reference(out: int) -> None:
        (directory / "reference.json").write_text(json.dumps(reference(model)))

    pid, end = forked(write_reference)
    _, status = os.waitpid(pid, 0)
    os.close(end)
    expected = json.loads((directory / "reference.json").read_text())
    root = directory / "memories"
    losses: list[float] = []
    mismatches: list[str] = []
    submitted_ns = 0
    restored_beside: set[int | None] = set()
    while len(losses) < kills and len(mismatches) < 10:
        pid, end = forked(lambda out: observe(root, model, out))
        buffer = bytearray()
        kill_at, restored, ended = time.monotonic() + PATIENCE_S, False, False
        began_ns = submitted_ns
        while time.monotonic() < kill_at and not ended:
            lines, closed = read_lines(end, kill_at, buffer)
            for line in lines:
                if "digest" in line:
                    restored = True
                    if began_ns:
                        newest_ns = max(line["newest_ns"], START_NS - STEP_NS)
                        losses.append(max(0, began_ns - newest_ns) / SECOND_NS)
                    # A record that SIGKILL cut in the middle of its write is named; nothing else may be amiss.
                    amiss = [note for note in line["notes"] if "is cut short" not in note]
                    if amiss or expected.get(line["place"]) != line["digest"]:
                        known = "another state" if line["place"] in expected else "no such place"
                        mismatches.append(f"{line['place']}: {known} {line['notes']}")
                    restored_beside.add(line["snapshot"])
                    kill_at = time.monotonic() + chance.uniform(0.0, 0.5)
                submitted_ns = line.get("submitted_ns", submitted_ns)
                ended = ended or "end" in line
            if closed:
                mismatches.append("a victim ended by itself")
                break
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        lines, _ = read_lines(end, time.monotonic() + 5, buffer)
        for line in lines:
            submitted_ns = line.get("submitted_ns", submitted_ns)
        os.close(end)
        if not restored:
            mismatches.append("a victim did not restore in time")
        if ended:
            shutil.rmtree(root)
            submitted_ns = 0
    result = {"kills": len(losses), "loss_max_s": max(losses), "loss_mean_s": sum(losses) / len(losses),
              "mismatches": mismatches, "snapshots": len(restored_beside)}  # fmt: skip
    print(json.dumps(result))
    return 1 if mismatches else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
