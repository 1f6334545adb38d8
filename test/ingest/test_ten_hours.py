"""Ten hours of stream without a disk: resident memory stays flat once the bounds are reached."""

from __future__ import annotations

import gc
import os
import resource
from pathlib import Path

import numpy as np
import pytest

from salmonn_node.runtime.build import build_backend
from salmonn_node.runtime.settings import Settings
from salmonn_node.stream.observations import SECOND_NS, AudioChunk, Frame, Pose

HOURS, HOUR_S = 10, 3_600
EVIDENCE_MIB, SLACK_MIB = 8, 24
START_NS = 1_700_000_000 * SECOND_NS
STILL = np.array([0.0, 0.0, 0.0, 1.0])


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


@pytest.mark.full
@pytest.mark.timeout(3_600)
def test_resident_memory_is_flat_over_ten_hours_without_persistence(capsys: pytest.CaptureFixture[str]) -> None:
    backend = build_backend(Settings(persistence=False, evidence_ram_mib=EVIDENCE_MIB, threads=1))
    observer = backend.observer
    generator = np.random.default_rng(0)
    hum = (0.05 * np.sin(np.arange(16_000) * 0.05)).astype(np.float32)
    resident: list[float] = []
    try:
        for second in range(HOURS * HOUR_S):
            stamp = START_NS + second * SECOND_NS
            observer.submit(Pose(stamp, "map", np.array([second * 0.01, 0.0, 0.0]), STILL))
            # Noise makes the largest pictures, and every pose is another one: the evidence fills up quickly.
            observer.submit(Frame(stamp, "front", generator.integers(0, 255, (36, 64, 3), np.uint8), "optical"))
            if second % 10 == 0:
                observer.submit(AudioChunk(stamp, "mic", hum))
            if second % 60 == 59:
                assert observer.drain()
            if second % HOUR_S == HOUR_S - 1:
                gc.collect()
                resident.append(resident_mib())
        status, sizes = observer.status(), observer.evidence.sizes()
    finally:
        backend.close()
        backend.free()
    with capsys.disabled():
        hours = ", ".join(f"{mib:.0f}" for mib in resident)
        print(f"\nresident MiB by hour: {hours}; evidence {sizes}; {os.times()[0]:.0f} CPU s")
    assert status.frames == HOURS * HOUR_S
    assert status.drops == {}
    assert sizes["thumbnail_bytes"] <= EVIDENCE_MIB << 19
    assert sizes["moments"] < HOURS * HOUR_S // 2, "the oldest moments went"
    assert max(resident[2:]) - resident[2] <= SLACK_MIB
