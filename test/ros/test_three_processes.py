"""Node, bag player and planner as three processes over DDS: answers, evidence, poses and MemoryStatus hold together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from salmonn_node.model.checkpoint import save
from salmonn_node.model.video_salmonn_s import VideoSalmonnS

ROOT = Path(__file__).parents[2]
SECOND_NS = 1_000_000_000


@pytest.mark.ros
@pytest.mark.timeout(480)
def test_a_bag_is_played_and_asked_about(tmp_path: Path) -> None:
    out = tmp_path / "out"
    domain = str(1 + (os.getpid() + 50) % 100)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ROS_DOMAIN_ID": domain}
    command = [sys.executable, "-m", "salmonn_node.cli", "demo", "--bag", "photographs"]
    # Untrained weights always answer, and always point at something.
    save(VideoSalmonnS.tiny(), tmp_path / "blank")
    command += ["--checkpoint", str(tmp_path / "blank"), "--output", str(out)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=460, check=False)
    logs = "".join(p.read_text(errors="replace") for p in out.glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    assert "untrained weights" in " ".join(done.stdout.split())
    result = json.loads((out / "answers.json").read_text())
    start_ns, end_ns = result["bag_start_ns"], result["bag_end_ns"]
    assert len(result["asked"]) == 4
    assert result["asked"][0]["asked_while_playing"]
    for entry in result["asked"]:
        answer = entry["answer"]
        assert answer["error_code"] == 0
        assert start_ns <= answer["memory_start_ns"] <= answer["last_observation_ns"] <= end_ns + SECOND_NS
        assert answer["latency_s"] > 0
        assert answer["evidence"]
        for evidence in answer["evidence"]:
            interval, pose = evidence["interval"], evidence["pose"]
            assert start_ns <= interval["start_ns"] <= interval["end_ns"] <= end_ns + SECOND_NS
            assert (pose["frame_id"], pose["map_id"]) == ("map", "demo")
            # The robot moves at 0.25 m/s along x, so a pose tells its time.
            pose_s = (pose["stamp_ns"] - start_ns) / SECOND_NS
            assert pose["position"][0] == pytest.approx(0.25 * pose_s, abs=0.02)
            assert interval["start_ns"] <= pose["stamp_ns"] <= interval["end_ns"]
    pictures = [name for entry in result["asked"] for name in entry["pictures"]]
    assert pictures
    assert all((out / name).read_bytes()[:2] == b"\xff\xd8" for name in pictures)
    memory = result["memory"]
    assert not memory["checkpoint_trained"]
    assert memory["frames"] == 20
    assert memory["poses"] == 400
    assert memory["audio_s"] == pytest.approx(20.0, abs=0.2)
    assert memory["drops"] == {"not_sampled": 140}
    assert 0 < memory["visual_tokens"] <= memory["visual_budget"]
    assert 0 < memory["audio_tokens"] <= memory["audio_budget"]
