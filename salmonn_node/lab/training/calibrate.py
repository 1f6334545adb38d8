"""Stage 6: fit thresholds and temperatures to judged answers, on worlds reserved for calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from salmonn_node.answering.confidence import Calibration, calibration_error, fit_temperature, risk_coverage
from salmonn_node.lab.training.evaluate import answered, records
from salmonn_node.lab.training.lessons import UNKNOWN
from salmonn_node.lab.training.streams import Bank, Pieces, Tokens
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.stream.answers import AnswerType

# (seconds of stream, number of streams): lengths within the budget and beyond it.
LENGTHS = ((24, 24), (60, 24), (240, 16), (900, 8), (3600, 4))
QUESTIONS = 14
NULLS = tuple(round(0.1 * i, 1) for i in range(2, 10)) + (0.95,)
SEED = 800_000
FEW = 20  # an answer type with fewer judged answers gets no confidence
# Share of known words. It accepts a question with a few new words, but not one in another language.
KNOWN_WORDS = 0.5


@dataclass(frozen=True)
class Calibrated:
    """A calibration, with its quality on the answers that it was fitted to.

    Attributes:
        calibration: the calibration for the checkpoint.
        ece: expected calibration error of the confidences.
        risk: (coverage, risk) at coverages of about 0.5, 0.8 and 1.
        table: accuracy at each threshold.
    """

    calibration: Calibration
    ece: float
    risk: tuple[tuple[float, float], ...]
    table: dict[float, float]


def streams(bank: Bank, lengths: Sequence[tuple[int, int]] = LENGTHS, seed: int = SEED) -> list[Tokens]:
    """Make streams to calibrate on, composed of pieces of at most two minutes."""
    pieces = Pieces([s.truth for s in bank.streams], bank.dense)
    rng = np.random.default_rng(seed)
    return [bank.stream(pieces.several(seconds, 120, rng)) for seconds, count in lengths for _ in range(count)]


def calibrate(model: VideoSalmonnS, bank: Bank) -> Calibrated:
    """Choose the weight of "nothing" above which an answer is NOT_OBSERVED, then fit a temperature per type."""
    checkpoint = model.checkpoint.id
    sets = [(tokens, records(tokens, QUESTIONS, SEED + i, f"calibrate-{i}")) for i, tokens in enumerate(streams(bank))]
    raw = Calibration.raw(checkpoint).model_copy(update={"null_above": 1.0, "unknown": UNKNOWN})
    found = [a for tokens, asked in sets for a in answered(model, tokens, asked, raw)]
    table = {null: float(np.mean([a.judged(null).correct for a in found])) for null in NULLS}
    null_above = max(table, key=lambda null: (table[null], -abs(null - 0.5)))
    best = [a.judged(null_above) for a in found]
    chosen = raw.model_copy(update={"null_above": null_above, "known_words": KNOWN_WORDS})
    temperatures: dict[str, float] = {}
    confidences: list[float] = []
    right: list[bool] = []
    for kind in AnswerType:
        mine = [j for j in best if j.record.answer_type == kind.name and not math.isnan(j.confidence)]
        if len(mine) < FEW:
            continue
        temperature = fit_temperature([j.confidence for j in mine], [j.correct for j in mine])
        temperatures[kind.name] = round(temperature, 3)
        fitted = Calibration(checkpoint=checkpoint, temperature={kind.name: temperature})  # type: ignore[dict-item]
        confidences += [fitted.confidence(kind, j.confidence) for j in mine]
        right += [j.correct for j in mine]
    done = chosen.model_copy(
        update={
            "temperature": temperatures,
            "questions": len(best),
            "made_on": f"{len(sets)} streams of {LENGTHS[0][0]} to {LENGTHS[-1][0]} s, worlds 300000 to 300015",
        }
    )
    curve = risk_coverage(confidences, right)
    risk = tuple(min(curve, key=lambda p: abs(p[0] - share)) for share in (0.5, 0.8, 1.0))
    return Calibrated(done, calibration_error(confidences, right), risk, table)
