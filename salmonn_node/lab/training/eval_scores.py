"""Score one arm on one set of streams, by age of the evidence and by kind of question."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from salmonn_node.answering.confidence import calibration_error, exact_calibration_error
from salmonn_node.evaluation.arms import DEFAULT_ARM
from salmonn_node.evaluation.equal_bytes import changes
from salmonn_node.evaluation.scores import Judgement, accuracy, bootstrap
from salmonn_node.lab.training import bank
from salmonn_node.lab.training.eval_sets import BASELINES, BLIND, NETWORK, ORACLE, TOLD, EvalSet
from salmonn_node.lab.training.evaluate import answered, blind, perfect, records, table
from salmonn_node.lab.training.memories import CAMERA, MICROPHONE
from salmonn_node.lab.training.streams import Pieces, Tokens, joined, read_bank
from salmonn_node.memory.event_memory import BESIDE
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


def fingerprint(model: VideoSalmonnS) -> str:
    """What answers: the id of the checkpoint, and a digest of what answers from events need, where there are any."""
    parts = model.event_parts
    if parts is None:
        return model.checkpoint.id
    sha = hashlib.sha256(repr((BESIDE, sorted(parts.names.temperature.items()))).encode())
    for part in (parts.heads, parts.names, parts.questions):
        for name, tensor in sorted(part.state_dict().items()):
            sha.update(name.encode() + tensor.cpu().numpy().tobytes())
    return f"{model.checkpoint.id}-{sha.hexdigest()[:8]}"


def streams_of(
    chosen: EvalSet, folder: Path, network: object, report: Callable[[str], None] = lambda line: None
) -> Iterator[Tokens]:
    """Yield the streams of a set. Missing worlds are rendered, which needs OpenGL; `report` takes a line for each."""
    worlds = bank.HELD_OUT if chosen.seconds else bank.LONG_DENSE if chosen.dense else bank.LONG_SPARSE
    bank.render(folder, worlds, report=report)
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


def score(
    model: VideoSalmonnS,
    streams: list[Tokens],
    chosen: EvalSet,
    arm: str = DEFAULT_ARM,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, object]:
    """Return the figures of one arm or baseline on one set; `report` takes a line for each stream that is done."""
    started = time.monotonic()
    found: list[Judgement] = []
    asked = [records(t, chosen.questions, SEED + i, f"{chosen.name}-{i}") for i, t in enumerate(streams)]
    if arm == BLIND:
        found = [a.judged() for a in blind([record for mine in asked for record in mine])]
    else:
        for number, (tokens, mine) in enumerate(zip(streams, asked, strict=True), 1):
            if arm == ORACLE:
                found += [a.judged() for a in perfect(tokens, mine)]
            else:
                sources = SOURCES.get(arm, ())
                found += [a.judged() for a in answered(model, tokens, mine, sources=sources, told=arm == TOLD)]
            minutes = (time.monotonic() - started) / 60
            report(f"{chosen.name} {arm}: stream {number} of {len(streams)} after {minutes:.1f} min")
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
    sure = [j.confidence for j in found if not math.isnan(j.confidence)]
    exact = exact_calibration_error(sure, draws=300) if sure else (math.nan, math.nan)
    by_stream: dict[str, list[Judgement]] = {}
    for judgement in found:
        by_stream.setdefault(judgement.record.stream, []).append(judgement)
    return {
        **_figures(found),
        "answerable_n": len(answerable),
        "confident_n": len(sure),
        "calibration_error_if_exact": [round(value, 4) for value in exact],
        "low": round(low, 4),
        "high": round(high, 4),
        "intervals": {name: _interval(found, name) for name in ("abstention_f1", "hit")},
        "ages": ages,
        "kinds": kinds,
        "by_stream": {name: _figures(mine) for name, mine in by_stream.items()},
        "settings": asdict(chosen),
        "s": round(time.monotonic() - started, 1),
    }


def _figures(found: Sequence[Judgement]) -> dict[str, float]:
    figures = {name: round(value, 4) for name, value in table(found).items()}
    return figures | {"calibration_error": round(_calibration_error(found), 4)}


def _interval(found: Sequence[Judgement], name: str) -> list[float]:
    return [round(end, 4) for end in bootstrap(found, lambda picked: table(picked)[name], samples=300)]


def _calibration_error(found: Sequence[Judgement]) -> float:
    sure = [j for j in found if not math.isnan(j.confidence)]
    return calibration_error([j.confidence for j in sure], [j.correct for j in sure]) if sure else math.nan
