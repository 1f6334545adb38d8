"""Sound that comes late changes nothing: the same prompt, the same positions, whatever came first."""

from __future__ import annotations

import numpy as np
import pytest

from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.stream.observations import SECOND_NS, AudioSpan, Frame

SECONDS = 34
START_NS = 1_000 * SECOND_NS


def prompt(model: VideoSalmonnS, late_s: float) -> tuple[list[int], list[list[int]]]:
    """Of a stream whose sound arrives that many seconds after its pictures."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(SECONDS)]
    events: list[tuple[float, int, object]] = []
    for k, image in enumerate(frames):
        events.append((float(k), 0, Frame(START_NS + k * SECOND_NS, "camera", image)))
        sound = rng.normal(0, 0.01, 16_000).astype(np.float32)
        events.append((k + 1 + late_s, 1, AudioSpan(START_NS + k * SECOND_NS, "microphone", sound)))
    memory = model.new_memory()
    for _, _, observation in sorted(events, key=lambda e: e[:2]):
        if isinstance(observation, Frame):
            model.observe_frame(memory, observation)
        else:
            model.observe_audio(memory, observation)
    made = model.prompt("?", model.view(memory))
    return made.ids.tolist(), made.positions.tolist()


@pytest.mark.parametrize("late_s", [0.5, 1.5, 4.0, 8.0])
def test_late_sound_changes_no_position(late_s: float) -> None:
    model = VideoSalmonnS.tiny()
    assert prompt(model, late_s) == prompt(model, 0.0)
