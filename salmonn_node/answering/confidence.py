"""Calibration of answers: the checkpoint's calibration file, temperature fit, calibration error, risk and coverage.

Each answer type has one temperature T. It turns the raw probability p of a typed answer into a confidence:
sigmoid(logit(p) / T) (Guo et al. 2017, on the binary question "is this answer right"). Without a calibration file,
the confidence is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from salmonn_node.answering.abstention import Observed
from salmonn_node.stream.answers import AnswerType

Floats = npt.NDArray[np.float64]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
TypeName = Literal["TEXT", "BINARY", "POSITION", "TIME", "DURATION", "COUNT", "CHOICE"]
CLIP = 1e-6
STEPS = 100


class Calibration(BaseModel):
    """The file `calibration.json` in a checkpoint's folder. A null value is not applied.

    Attributes:
        checkpoint: id of the weights it was made for; it is refused with other weights.
        made_on: the held-out streams it was made on, for people.
        questions: number of judged answers it was fitted on.
        temperature: temperature by answer type; a type without one has no confidence.
        weakest_evidence: if the strongest evidence has less than this strength (0..1), the answer is NOT_OBSERVED.
        null_above: if the evidence head gives "nothing" more weight than this, the answer is NOT_OBSERVED.
        unknown: if the network writes this text, the answer is NOT_OBSERVED; empty: no such text.
        shown_below: for a network without an evidence head: if it gives "the video shows it" a lower probability than
            this, the answer is NOT_OBSERVED; null: the rule of `Answerer`. Not used where `observed` is.
        observed: for a network without an evidence head: the fitted rule of `answering/abstention.py`.
        heads: for a network without an evidence head: (layer, head) of the attention heads that propose evidence;
            empty: all of them.
        ambiguous_ratio: a TIME or POSITION is AMBIGUOUS if a second candidate has at least this share of the first
            one's strength and lies far from it.
        known_words: if the checkpoint's vocabulary knows less than this share of the question's words, the confidence
            is multiplied by the known share; see answering/known_words.py.
        far_s, far_m: what "far" means: seconds between two intervals (TIME), metres between two poses (POSITION).
        chat: values of `model/chat_format.py` for questions to these weights; read when the weights are loaded.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: Literal[1] = 1
    checkpoint: str
    made_on: str = ""
    questions: Annotated[int, Field(ge=0)] = 0
    temperature: dict[TypeName, Annotated[float, Field(gt=0.0)]] = {}
    weakest_evidence: Share | None = None
    null_above: Share | None = None
    unknown: str = ""
    shown_below: Share | None = None
    observed: Observed | None = None
    heads: tuple[tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]], ...] = ()
    ambiguous_ratio: Share | None = None
    known_words: Share | None = None
    far_s: Annotated[float, Field(ge=0.0)] = 30.0
    far_m: Annotated[float, Field(ge=0.0)] = 2.0
    chat: dict[str, Any] = {}

    @classmethod
    def raw(cls, checkpoint: str) -> Calibration:
        """A calibration with temperature 1 for every type, so that confidences are the raw probabilities for a fit."""
        return cls(checkpoint=checkpoint, temperature=dict.fromkeys(get_args(TypeName), 1.0))

    def confidence(self, kind: AnswerType, probability: float, known_share: float = 1.0) -> float:
        """Calibrated probability that an answer of this type is right; NaN without a temperature for the type.

        Args:
            kind: type of the answer.
            probability: raw probability of the answer.
            known_share: share of the question's words that the checkpoint's vocabulary knows.
        """
        temperature = self.temperature.get(kind.name)  # type: ignore[call-overload]
        if temperature is None or not math.isfinite(probability):
            return math.nan
        calibrated = float(scaled(np.array([probability]), temperature)[0])
        strange = self.known_words is not None and known_share < self.known_words
        return calibrated * known_share if strange else calibrated


def read_calibration(path: Path, checkpoint: str) -> Calibration:
    """Read a calibration file for the weights called `checkpoint`.

    Raises:
        ValueError: the file is malformed or belongs to other weights; the message names the file and the field.
    """
    try:
        calibration = Calibration.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{path}: {where}: {first['msg']}") from None
    if calibration.checkpoint != checkpoint:
        raise ValueError(f"{path}: checkpoint: made for {calibration.checkpoint}, not for {checkpoint}")
    return calibration


def scaled(probability: Floats, temperature: float) -> Floats:
    """Apply a temperature: (n,) probabilities in 0..1 with their logits divided by `temperature` > 0."""
    p = np.clip(np.asarray(probability, np.float64), CLIP, 1 - CLIP)
    return 1 / (1 + np.exp(-(np.log(p) - np.log1p(-p)) / temperature))


def fit_temperature(probability: Sequence[float], correct: Sequence[bool], smoothed: bool = False) -> float:
    """Fit the temperature in 0.05..20 that minimises the negative log-likelihood of judged answers.

    Args:
        probability: (n,) raw probability of each answer.
        correct: (n,) whether each answer was right.
        smoothed: fit to (r + 1) / (r + 2) instead of 1 and 1 / (w + 2) instead of 0, with r right and w wrong answers
            (Platt 1999), so that answers which were all right do not become certain.

    Raises:
        ValueError: there are no answers, the lengths differ, or a probability is outside 0..1.
    """
    p, right = _checked(probability, correct)
    wrong = len(right) - int(right.sum())
    high, low = ((len(right) - wrong + 1) / (len(right) - wrong + 2), 1 / (wrong + 2)) if smoothed else (1.0, 0.0)
    target = np.where(right, high, low)

    def loss(log_temperature: float) -> float:
        q = np.clip(scaled(p, math.exp(log_temperature)), CLIP, 1 - CLIP)
        return -float(np.mean(target * np.log(q) + (1 - target) * np.log1p(-q)))

    # The loss is convex in 1/T, so it has one minimum in log T too, and a ternary search finds it.
    first, last = math.log(0.05), math.log(20.0)
    for _ in range(STEPS):
        a, b = first + (last - first) / 3, last - (last - first) / 3
        first, last = (first, b) if loss(a) <= loss(b) else (a, last)
    return math.exp((first + last) / 2)


def calibration_error(confidence: Sequence[float], correct: Sequence[bool], bins: int = 10) -> float:
    """Expected calibration error over equal-width bins.

    Raises:
        ValueError: as `fit_temperature`.
    """
    p, right = _checked(confidence, correct)
    which = np.minimum((p * bins).astype(int), bins - 1)
    error = 0.0
    for b in range(bins):
        inside = which == b
        if inside.any():
            error += float(inside.mean()) * abs(float(p[inside].mean()) - float(right[inside].mean()))
    return error


def exact_calibration_error(confidence: Sequence[float], draws: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Calibration error that confidences which are exactly right would show on this many answers, by chance alone.

    Args:
        confidence: (n,) confidence of each answer; in each draw an answer is right with just this probability.
        draws: number of draws.
        seed: seed of the draws.

    Returns:
        The mean over the draws, and the value that one draw in ten exceeds.

    Raises:
        ValueError: as `fit_temperature`.
    """
    p = np.asarray(confidence, np.float64)
    random = np.random.default_rng(seed)
    errors = [calibration_error(p, random.random(len(p)) < p) for _ in range(draws)]  # type: ignore[arg-type]
    return float(np.mean(errors)), float(np.quantile(errors, 0.9))


def risk_coverage(confidence: Sequence[float], correct: Sequence[bool]) -> list[tuple[float, float]]:
    """The risk-coverage curve: (share answered, share of those wrong) when only the most confident answers are given.

    The most confident answers come first. Answers of equal confidence form one point.

    Raises:
        ValueError: as `fit_temperature`.
    """
    p, right = _checked(confidence, correct)
    points = []
    for level in np.unique(p)[::-1]:
        given = p >= level
        points.append((float(given.mean()), 1 - float(right[given].mean())))
    return points


def _checked(probability: Sequence[float], correct: Sequence[bool]) -> tuple[Floats, npt.NDArray[np.bool_]]:
    p, right = np.asarray(probability, np.float64), np.asarray(correct, bool)
    if p.ndim != 1 or p.shape != right.shape or not len(p):
        raise ValueError(
            f"probability and correct must be 1-D, not empty and equally long, got {p.shape} {right.shape}"
        )
    if not (np.isfinite(p).all() and (p >= 0).all() and (p <= 1).all()):
        raise ValueError("probability: expected numbers in 0..1")
    return p, right
