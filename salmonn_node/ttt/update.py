"""Update of the fast weights by one mini-batch of projected rows: a pure function, nothing changes in place."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from salmonn_node.ttt import hessian_free, inner_model
from salmonn_node.ttt.config import TTTConfig
from salmonn_node.ttt.hessian_free import Solution
from salmonn_node.ttt.inner_model import InnerWeights, Linearisation, Norm, Objective


class Rows(NamedTuple):
    """Projected rows of a mini-batch, the input of an update: B streams, H heads, G = B * H."""

    query: Tensor  # (G, m, D)
    key: Tensor  # (G, m, D)
    target: Tensor  # R, (G, m, D)
    rate: Tensor  # eta, (G, m, 1); for `damped` without the factor base_lr / D / m
    lag_key: Tensor | None = None  # (G, m, D)
    lag_target: Tensor | None = None  # R_lag, (G, m, D)
    seen: Tensor | None = None  # M, (m, 1), whether the row `lag_distance` earlier exists

    def goal(self, lag_weight: float) -> Objective:
        """Return the objective that the update lowers."""
        if self.lag_target is None or self.seen is None:
            return Objective(self.target, None, self.rate)
        pull = lag_weight * self.seen
        return Objective(torch.addcmul(self.target, self.lag_target, pull), pull, self.rate)


class Step(NamedTuple):
    """Result of an update, before the layer writes it to a state."""

    weights: InnerWeights
    damping: Tensor  # (G,)
    gradient: InnerWeights | None = None
    solution: Solution | None = None  # of `hf`
    rejected: Tensor | None = None  # (G,) bool, of `damped`
    skipped: Tensor | None = None  # (G,) bool; None when every head's new weights are finite


def update(
    rows: Rows, weights: InnerWeights, initial: InnerWeights, damping: Tensor, norm: Norm, config: TTTConfig
) -> Step:
    """Compute the fast weights after one mini-batch.

    Args:
        rows: the mini-batch.
        weights: the current fast weights, in `config.state_dtype`.
        initial: the weights toward which decay pulls. Not read if `config.decay` is 0.
        damping: (G,), only read by `damped`.
        norm: affine parameters of the layer norm.
        config: the update rule.
    """
    if config.optimizer == "static":
        return Step(weights, damping)
    goal = rows.goal(config.lag_weight)
    at = inner_model.linearise(rows.key, weights.to(rows.key.dtype))
    b = inner_model.gradient(at, goal, norm)
    if config.optimizer == "sgd":
        delta, step = b, Step(weights, damping, b)
    elif config.optimizer == "hf":
        delta, step = _hessian_free(at, b, Step(weights, damping, b), config)
    else:
        delta, step = _damped(at, goal, b, Step(weights, damping, b), norm, config)
    new = InnerWeights(*(w - d.to(w.dtype) for w, d in zip(weights, delta, strict=True)))
    if config.decay:
        new = InnerWeights(*(torch.lerp(w, w0, config.decay) for w, w0 in zip(new, initial, strict=True)))
    if config.mode == "released":
        return step._replace(weights=new)
    # A single NaN or infinity makes the sum of its head NaN or infinite.
    finite = (new.W1.sum((1, 2)) + new.b1.sum((1, 2)) + new.W2.sum((1, 2)) + new.b2.sum((1, 2))).isfinite()
    if finite.all():
        return step._replace(weights=new)
    keep = finite[:, None, None]
    new = InnerWeights(*(torch.where(keep, w, old) for w, old in zip(new, weights, strict=True)))
    return step._replace(weights=new, skipped=~finite)


def _product(at: Linearisation, like: InnerWeights) -> hessian_free.Product:
    """Gauss-Newton product on flat vectors. They are float32 or wider; the product runs in the compute dtype."""
    compute = at.X1.dtype

    def product(v: Tensor) -> Tensor:
        return inner_model.gauss_newton_product(at, like.unflat(v.to(compute))).flat().to(v.dtype)

    return product


def _hessian_free(at: Linearisation, b: InnerWeights, before: Step, config: TTTConfig) -> tuple[InnerWeights, Step]:
    rhs = _wide(b.flat())
    solution = hessian_free.conjugate_gradient(_product(at, b), rhs, config.cg_iterations)
    return b.unflat(solution.u), before._replace(solution=solution)


def _damped(
    at: Linearisation, goal: Objective, b: InnerWeights, before: Step, norm: Norm, config: TTTConfig
) -> tuple[InnerWeights, Step]:
    """Solve with the mean curvature and mean gradient per row, so that damping does not depend on the batch size."""
    m = at.X1.shape[1]
    product, rhs = _product(at, b), _wide(b.flat()) / m
    u, predicted = hessian_free.damped_conjugate_gradient(
        lambda v: product(v) / m, rhs, before.damping.to(rhs.dtype), config.cg_iterations
    )
    with torch.no_grad():
        trial = InnerWeights(*(w - d for w, d in zip(before.weights, b.unflat(u), strict=True))).to(at.X1.dtype)
        was = inner_model.objective_value(at.x_hat, goal, norm)
        now = inner_model.objective_value(inner_model.normalised_output(at.X1, trial), goal, norm)
        actual = ((was - now) / m).to(before.damping.dtype)
        accepted = actual >= 0
        damping = hessian_free.adapt_damping(before.damping, actual, predicted.to(actual.dtype))
    u = torch.where(accepted.unsqueeze(-1), u, 0)
    return b.unflat(u), before._replace(damping=damping, rejected=~accepted)


def _wide(vector: Tensor) -> Tensor:
    return vector.to(torch.promote_types(vector.dtype, torch.float32))
