"""An oracle in the network's place: a real memory under it, but answers, evidence and doubt come from a script.

It sees nothing and knows nothing. It stands where the trained network will, so that what the answerer makes of a
network's words, likelihoods and pointers can be tested; nothing that it says is a figure of this project.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from salmonn_node.answering.answerer import Answerer
from salmonn_node.answering.confidence import Calibration
from salmonn_node.ingest.observer import Observer
from salmonn_node.model.generation import Generation
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.stream.observations import SECOND_NS as S
from salmonn_node.stream.observations import AudioChunk, Frame, Pose

START = 1_700_000_000 * S


@dataclass(frozen=True)
class Line:
    """What the oracle says to one question.

    Attributes:
        text: its words.
        points: (source, second of the stream, weight) of what it points at; the weights and `null` sum to one.
        null: its weight of "nothing".
        place: which token of a patch it points at, all of them when None.
        option: which option it finds likelier by far.
        value: what it writes when its words are held to a grammar.
        alike: (source, second) of what matches without being pointed at.
    """

    text: str = ""
    points: tuple[tuple[str, float, float], ...] = ()
    null: float = 0.0
    place: int | None = None
    option: int = 0
    value: str = ""
    alike: tuple[tuple[str, float], ...] = ()


def oracle_network(lines: dict[str, Line], head: bool = True) -> Any:
    """The tiny network, called trained, whose answers are `lines` by question text; it points with its evidence head.

    Without a head what it points at is what it attends to, and nobody doubts.
    """
    model: Any = VideoSalmonnS.tiny(evidence_head=head)
    model.checkpoint = replace(model.checkpoint, id="oracle", name="oracle (no network)", trained=True)

    def answer(
        question: str,
        view: Any,
        *,
        max_new_tokens: int,
        should_stop: Callable[[], bool] = lambda: False,
        on_text: Callable[[str], None] | None = None,
        **typed: Any,
    ) -> Generation:
        line = lines[question]
        pointer = torch.zeros(len(view))
        for source, second, weight in line.points:
            pointer += weight * _at(view, source, START + round(second * S), line.place)
        found: dict[str, Any] = {}
        if typed.get("options"):
            scores = torch.full((len(typed["options"]),), -4.0)
            scores[line.option] = -0.1
            found["option_logprobs"] = scores
        if typed.get("grammar") is not None:
            found |= {"value": line.value, "value_logprob": -0.1}
        uniform = torch.full((len(view),), 1.0 / len(view))
        if not head:
            return Generation(line.text, [1], [-0.1], pointer, **found)
        matching = pointer > 0
        for source, second in line.alike:
            matching |= _at(view, source, START + round(second * S), line.place) > 0
        found |= {"pointer": pointer, "null_weight": line.null, "matching": matching}
        return Generation(line.text, [1], [-0.1], uniform, **found)

    model.answer = answer
    return model


def _at(view: Any, source: str, stamp_ns: int, place: int | None) -> Tensor:
    """Weights that sum to one over the tokens of `source` that were seen or heard at `stamp_ns`."""
    parts = []
    for batch in (view.visual, view.audio):
        if batch is None:
            continue
        mask = (batch.source == view.sources.index(source)) & (batch.stamp_ns <= stamp_ns)
        mask &= batch.last_ns + S // 2 > stamp_ns
        if place is not None and batch is view.visual:
            mask &= batch.place == place
        parts.append(mask.float())
    found = torch.cat(parts)
    return found / found.sum().clamp(min=1)


def oracle_answerer(
    lines: dict[str, Line],
    *,
    cameras: Sequence[str] = ("front",),
    seconds: int = 60,
    calibration: Calibration | None = None,
    head: bool = True,
    **settings: Any,
) -> Answerer:
    """An answerer over a memory of a robot that drives one metre a second along x, with cameras and a microphone."""
    observer = Observer(oracle_network(lines, head), inline=True)
    rng = np.random.default_rng(0)
    for t in range(seconds):
        stamp = START + t * S
        for half in (0, S // 2):
            here = np.array([t + half / S, 1.0, 0.0])
            observer.submit(Pose(stamp + half, "map", here, np.array([0.0, 0.0, 0.0, 1.0]), None, "home"))
        for name in cameras:
            image = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
            observer.submit(Frame(stamp, name, image, f"{name}_optical"))
        sound = rng.normal(0, 0.1, (16_000, 1)).astype(np.float32)
        observer.submit(AudioChunk(stamp, "mic", sound, 16_000, "mic"))
    return Answerer(observer, max_new_tokens=4, calibration=calibration, **settings)
