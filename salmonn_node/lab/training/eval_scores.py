"""Score one arm on one set of streams, by age of the evidence and by kind of question."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from salmonn_node.evaluation.arms import DEFAULT_ARM
from salmonn_node.evaluation.equal_bytes import changes
from salmonn_node.evaluation.scores import Judgement, accuracy, bootstrap
from salmonn_node.lab.training import bank
from salmonn_node.lab.training.eval_sets import BASELINES, NETWORK, EvalSet
from salmonn_node.lab.training.evaluate import answered, blind, records, table
from salmonn_node.lab.training.memories import CAMERA, MICROPHONE
from salmonn_node.lab.training.streams import Pieces, Tokens, joined, read_bank
from salmonn_node.model.checkpoint import load
from salmonn_node.model.video_salmonn_s import VideoSalmonnS

# Sources that a baseline may read from the memory.
SOURCES: dict[str, tuple[str, ...]] = {"vision": (CAMERA,), "audio": (MICROPHONE,)}
AGES_S = (0, 120, 600, 1800, 3600, 7200, 10**9)
SEED = 600_000


def arm_model(checkpoint: str, arm: str) -> VideoSalmonnS:
    """Load the checkpoint with the memory of an arm, at the same bytes. A baseline uses the checkpoint's own memory."""
    model = load(checkpoint)
    if arm == NETWORK:
        return load(checkpoint, read_events=False)
    if arm == DEFAULT_ARM or arm in BASELINES:
        return model
    # Arms compare how tokens are kept, at equal bytes: only the checkpoint's own arm keeps events beside them.
    return load(checkpoint, read_events=False, **changes(model.config, arm))


def streams_of(chosen: EvalSet, folder: Path, network: object) -> Iterator[Tokens]:
    """Yield the streams of a set. Missing worlds are rendered, which needs OpenGL."""
    worlds = bank.HELD_OUT if chosen.seconds else bank.LONG_DENSE if chosen.dense else bank.LONG_SPARSE
    bank.render(folder, worlds)
    if not chosen.seconds:
        whole = read_bank(folder, worlds, network).streams  # type: ignore[arg-type]
        for number in range(chosen.streams):
            yield joined(whole[number * chosen.joined : (number + 1) * chosen.joined])
        return
    held = read_bank(folder, bank.HELD_OUT, network)  # type: ignore[arg-type]
    pieces = Pieces([s.truth for s in held.streams], held.dense)
    rng = np.random.default_rng(SEED)
    for _ in range(chosen.streams):
        yield held.stream(pieces.several(chosen.seconds, min(chosen.seconds, 240), rng, chosen.dense))


def score(model: VideoSalmonnS, streams: list[Tokens], chosen: EvalSet, arm: str = DEFAULT_ARM) -> dict[str, object]:
    """Return the figures of one arm or baseline on one set."""
    started = time.monotonic()
    found: list[Judgement] = []
    asked = [records(t, chosen.questions, SEED + i, f"{chosen.name}-{i}") for i, t in enumerate(streams)]
    if arm == "blind":
        found = [a.judged() for a in blind([record for mine in asked for record in mine])]
    else:
        for tokens, mine in zip(streams, asked, strict=True):
            found += [a.judged() for a in answered(model, tokens, mine, sources=SOURCES.get(arm, ()))]
    answerable = [j for j in found if j.record.answerable]
    low, high = bootstrap(answerable, accuracy, samples=300)
    ages = {}
    for first, last in zip(AGES_S, AGES_S[1:], strict=False):
        inside = [j for j in answerable if (age := j.record.evidence_age_s) is not None and first <= age < last]
        if inside:
            ages[str(first)] = [len(inside), round(accuracy(inside), 3)]
    kinds = {
        kind: [len(mine), round(accuracy(mine), 3)]
        for kind in sorted({j.record.kind for j in answerable})
        if (mine := [j for j in answerable if j.record.kind == kind])
    }
    figures = {name: round(value, 4) for name, value in table(found).items()}
    return {
        **figures, "low": round(low, 4), "high": round(high, 4), "ages": ages, "kinds": kinds,
        "settings": asdict(chosen), "s": round(time.monotonic() - started, 1),
    }  # fmt: skip
