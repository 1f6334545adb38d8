"""Abstention of a network without an evidence head: how likely is it that the memory shows what was asked about?

Five signs speak for it: how sure the network is of its answer, whether it says that the video shows it, how much more
it says so than with nothing to see, how much likelier the best window makes the answer, and how much attention one
window gets. Each alone is a weak sign. A
logistic over them, fitted by `salmonn calibrate`, is a good one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from salmonn_node.model.generation import Generation

SignName = Literal["answer", "shown", "gain", "sufficiency", "attention"]
SIGNS: tuple[SignName, ...] = get_args(SignName)
Signs = Mapping[SignName, float]
CLIP = 1e-4
# Strength of the pull towards no weight at all. It keeps the weights finite when few answers are separated by chance.
RIDGE = 1.0
ROUNDS = 50
MOST_HELD_BACK = 0.25  # of the answers that the memory shows


class Observed(BaseModel):
    """The fitted rule, part of `calibration.json`.

    Attributes:
        weights: weight of each sign.
        bias: added to the weighted signs.
        least: if "the memory shows it" has a lower probability than this, the answer is NOT_OBSERVED.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    weights: dict[SignName, float]
    bias: float
    least: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5

    def probability(self, signs: Signs) -> float:
        """Probability that the memory shows what was asked about."""
        total = self.bias + sum(weight * signs[name] for name, weight in self.weights.items())
        return 1 / (1 + math.exp(-max(-60.0, min(60.0, total))))


def signs_of(generation: Generation, says_unknown: bool) -> dict[SignName, float] | None:
    """Return the signs of an answer, None if the network has an evidence head or was not asked all that is needed.

    Args:
        generation: the answer.
        says_unknown: whether its text says that the memory does not show it.
    """
    if generation.shown is None or generation.shown_blind is None:
        return None
    if generation.sufficiency is None or generation.focus is None:
        return None
    words = generation.token_logprobs
    sure = math.exp(sum(words) / len(words)) if words else 0.5
    return {
        "answer": _logit(1 - sure if says_unknown else sure),
        "shown": _logit(generation.shown),
        "gain": _logit(generation.shown) - _logit(generation.shown_blind),
        "sufficiency": generation.sufficiency,
        "attention": generation.focus,
    }


def held_back(signs: Signs) -> bool:
    """The rule without a calibration: the network says no, and no less so than with nothing to see."""
    return signs["shown"] < 0.0 and signs["gain"] < 0.0


def fit(signs: Sequence[Signs], shown: Sequence[bool]) -> Observed:
    """Fit the rule to answers of which it is known whether the memory showed what was asked about.

    Logistic regression with a ridge, by Newton's method. `least` is the threshold with the best F1 of abstaining on
    these answers.

    Args:
        signs: (n,) signs of each answer.
        shown: (n,) whether the memory showed it.

    Raises:
        ValueError: fewer than two answers of either kind.
    """
    right = np.asarray(shown, np.float64)
    if len(right) != len(signs) or min(right.sum(), len(right) - right.sum()) < 2:
        raise ValueError(f"shown: expected at least two answers of each kind, got {right.sum():.0f} of {len(signs)}")
    table = np.array([[s[name] for name in SIGNS] for s in signs], np.float64)
    middle, spread = table.mean(0), table.std(0) + 1e-9
    rows = np.column_stack([(table - middle) / spread, np.ones(len(table))])
    weights = np.zeros(rows.shape[1])
    pull = np.diag([RIDGE] * len(SIGNS) + [0.0])
    for _ in range(ROUNDS):
        p = 1 / (1 + np.exp(-np.clip(rows @ weights, -30, 30)))
        slope = rows.T @ (p - right) + pull @ weights
        bend = (rows * (p * (1 - p) + 1e-9)[:, None]).T @ rows + pull
        step = np.linalg.solve(bend, slope)
        weights -= step
        if np.abs(step).max() < 1e-9:
            break
    scaled = weights[:-1] / spread
    found = Observed(
        weights={name: round(float(w), 5) for name, w in zip(SIGNS, scaled, strict=True)},
        bias=round(float(weights[-1] - middle @ scaled), 5),
    )
    probability = np.array([found.probability(s) for s in signs])
    return found.model_copy(update={"least": best_threshold(probability, ~np.asarray(shown, bool))})


def best_threshold(probability: npt.NDArray[np.float64], unshown: npt.NDArray[np.bool_]) -> float:
    """Threshold below which to abstain, with the best F1 among those that hold back at most MOST_HELD_BACK.

    Without that bound, signs that tell nothing would hold back everything, which has a fair F1. A threshold lies in the
    middle between two values; 0 abstains from nothing.
    """
    values = np.unique(probability)
    cuts = [0.0, *((a + b) / 2 for a, b in zip(values, values[1:], strict=False))]
    allowed = [cut for cut in cuts if not (~unshown).any() or (probability < cut)[~unshown].mean() <= MOST_HELD_BACK]
    return round(float(max(allowed, key=lambda cut: (f1(probability < cut, unshown), -abs(cut - 0.5)))), 5)


def f1(abstained: npt.NDArray[np.bool_], unshown: npt.NDArray[np.bool_]) -> float:
    """F1 of abstaining: the positive class is what the memory does not show. 0 if neither occurs."""
    total = int(abstained.sum() + unshown.sum())
    return 2 * int((abstained & unshown).sum()) / total if total else 0.0


def _logit(p: float) -> float:
    p = min(max(p, CLIP), 1 - CLIP)
    return math.log(p) - math.log1p(-p)
