"""Answers to the demo's questions, replayed in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from salmonn_node.live.demo_setup import NODE_PARAMETERS, DemoOptions, prepare
from salmonn_node.model.network_settings import NetworkSettings
from salmonn_node.replay.job import Job, JobSettings, run_job


def demo_answers(
    output: Path, read_events: str = "auto", device: str = "auto", weights: str = "full"
) -> list[dict[str, Any]]:
    """Replay the demo's bag into a folder; returns the lines of its answer file.

    Args:
        output: where the replay goes; a new folder.
        read_events: as the network's setting.
        device: as the network's setting.
        weights: as the network's setting.
    """
    recording = prepare(DemoOptions("world", 1.0, "tiny", output))
    network = NetworkSettings(
        device=device,
        weights=weights,
        read_events=read_events,
        max_new_tokens=int(NODE_PARAMETERS["max_new_tokens"]),
    )
    settings = JobSettings(network=network, map_id=NODE_PARAMETERS["map_id"])
    result = run_job(Job(recording.bag, tuple(recording.questions), settings, output / "replay"))
    assert not result.error, result.error
    assert len(result.answers) == len(recording.questions)
    return [json.loads(line) for line in (output / "replay" / "answers.jsonl").read_text().splitlines()]


def rounded(value: Any, digits: int = 2) -> Any:
    """The same values with each float rounded, as other kernels give other last digits."""
    if isinstance(value, dict):
        return {key: rounded(inner, digits) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner, digits) for inner in value]
    return round(value, digits) if isinstance(value, float) else value
