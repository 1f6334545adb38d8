"""The inner model of one head, an MLP with a layer norm: its values, closed-form gradient and Gauss-Newton product.

    Z1 = X W1 + b1,  X2 = GELU(Z1),  Z2 = X2 W2 + b2,  Y = gamma * LN(Z2) + beta        (X is N rows of D channels)

Shapes: B streams, H heads, N rows, D channels, F hidden channels. Every function is differentiable again, so that
training can go back through an update. Equations: "Learning to (Learn at Test Time)" (arXiv:2407.04620), with the
tanh form of GELU and a layer norm whose 1e-8 stands inside the root.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

LN_EPS = 1e-8


class InnerWeights(NamedTuple):
    """Fast weights, or a vector in their space (a gradient, a step)."""

    W1: Tensor  # (B, H, D, F), used as X @ W1
    b1: Tensor  # (B, H, 1, F)
    W2: Tensor  # (B, H, F, D)
    b2: Tensor  # (B, H, 1, D)

    def to(self, dtype: torch.dtype) -> InnerWeights:
        """Cast every part."""
        return InnerWeights(*(part.to(dtype) for part in self))

    def flat(self) -> Tensor:
        """All four parts of a head as one vector: (B, H, P)."""
        return torch.cat([part.flatten(2) for part in self], dim=-1)

    def unflat(self, vector: Tensor) -> InnerWeights:
        """Views into a (B, H, P) vector, in the shapes of these weights."""
        parts = vector.split([part[0, 0].numel() for part in self], dim=-1)
        return InnerWeights(*(v.unflatten(-1, part.shape[2:]) for v, part in zip(parts, self, strict=True)))


class Linearisation(NamedTuple):
    """What the gradient and the Gauss-Newton product share about rows X at weights W."""

    X1: Tensor  # (B, H, N, D)
    X2: Tensor  # (B, H, N, F)
    slope: Tensor  # GELU'(Z1), (B, H, N, F)
    Z2: Tensor  # (B, H, N, D)
    x_hat: Tensor  # LN(Z2), (B, H, N, D)
    mean: Tensor  # (B, H, N, 1)
    rstd: Tensor  # (B, H, N, 1)
    W2: Tensor  # (B, H, F, D)


class Objective(NamedTuple):
    """Sum over rows of rate * [1/2 |Y - R|^2 + pull/2 |Y - R_lag|^2], kept as pooled = R + pull R_lag."""

    pooled: Tensor  # (B, H, N, D)
    pull: Tensor | None  # lambda * M, broadcastable to (B, H, N, 1); None without a long-span term
    rate: Tensor  # (B, H, N, 1)


def batched(X: Tensor, W: Tensor, b: Tensor | None = None) -> Tensor:
    """X @ W (+ b) over (B, H) as one batched product: (B, H, N, D), (B, H, D, F), (B, H, 1, F) -> (B, H, N, F)."""
    X3, W3 = X.flatten(0, 1), W.flatten(0, 1)
    Z = torch.bmm(X3, W3) if b is None else torch.baddbmm(b.flatten(0, 1), X3, W3)
    return Z.unflatten(0, X.shape[:2])


def normalise_target(u: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """Targets gamma (u - mean) / (std + 1e-8) + beta; std is the unbiased one, unlike the layer norm's.

    Args:
        u: (B, H, N, D).
        gamma: (H, 1, D).
        beta: (H, 1, D).
    """
    D = u.shape[-1]
    x_hat, _, rstd = torch.native_layer_norm(u, (D,), None, None, 1e-30)
    biased_std = rstd.reciprocal()
    return torch.addcmul(beta, x_hat * (biased_std / (biased_std * math.sqrt(D / (D - 1)) + LN_EPS)), gamma)


def linearise(X: Tensor, W: InnerWeights) -> Linearisation:
    """Run the inner model on rows X (B, H, N, D) and keep what its derivatives need."""
    Z1 = batched(X, W.W1, W.b1)
    X2 = F.gelu(Z1, approximate="tanh")
    slope = torch.ops.aten.gelu_backward(torch.ones_like(Z1), Z1, approximate="tanh")
    Z2 = batched(X2, W.W2, W.b2)
    x_hat, mean, rstd = torch.native_layer_norm(Z2, Z2.shape[-1:], None, None, LN_EPS)
    return Linearisation(X, X2, slope, Z2, x_hat, mean, rstd, W.W2)


def evaluate(X: Tensor, W: InnerWeights, gamma: Tensor, beta: Tensor) -> Tensor:
    """Y = gamma LN(f(X)) + beta for rows X (B, H, N, D); gamma and beta are (H, 1, D)."""
    Z2 = batched(F.gelu(batched(X, W.W1, W.b1), approximate="tanh"), W.W2, W.b2)
    return torch.addcmul(beta, F.layer_norm(Z2, Z2.shape[-1:], eps=LN_EPS), gamma)


def output_gradient(at: Linearisation, goal: Objective, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the objective with respect to Z1 (B, H, N, F) and Z2 (B, H, N, D), rates included.

    rate * g with g = (Y - R) + pull (Y - R_lag) goes back through gamma, the layer norm, W2 and GELU.
    """
    Y = torch.addcmul(beta, at.x_hat, gamma)
    g = (Y if goal.pull is None else Y * (1 + goal.pull)) - goal.pooled
    a = g * gamma * goal.rate
    shape = at.Z2.shape[-1:]
    gZ2 = torch.ops.aten.native_layer_norm_backward(
        a, at.Z2, shape, at.mean, at.rstd, None, None, [True, False, False]
    )[0]
    gZ1 = batched(gZ2, at.W2.mT) * at.slope
    return gZ1, gZ2


def gradient(at: Linearisation, goal: Objective, gamma: Tensor, beta: Tensor) -> InnerWeights:
    """Gradient of the objective with respect to the fast weights: the step that SGD subtracts."""
    return _pull_back(at, *output_gradient(at, goal, gamma, beta))


def gauss_newton_product(at: Linearisation, v: InnerWeights) -> InnerWeights:
    """G v with G = sum over rows of J^T J, J the Jacobian of Z2 (before the layer norm) in the fast weights."""
    dZ1 = batched(at.X1, v.W1, v.b1)
    dZ2 = batched(dZ1 * at.slope, at.W2) + batched(at.X2, v.W2, v.b2)
    return _pull_back(at, batched(dZ2, at.W2.mT) * at.slope, dZ2)


def _pull_back(at: Linearisation, gZ1: Tensor, gZ2: Tensor) -> InnerWeights:
    """J^T applied to row gradients: [X1^T gZ1, sum gZ1, X2^T gZ2, sum gZ2]."""
    return InnerWeights(
        batched(at.X1.mT, gZ1), gZ1.sum(-2, keepdim=True), batched(at.X2.mT, gZ2), gZ2.sum(-2, keepdim=True)
    )


def objective_value(at: Linearisation, goal: Objective, gamma: Tensor, beta: Tensor) -> Tensor:
    """The objective up to a constant that does not depend on the weights: (B, H)."""
    Y = torch.addcmul(beta, at.x_hat, gamma)
    weight = 1 if goal.pull is None else 1 + goal.pull
    return (goal.rate * (0.5 * weight * Y - goal.pooled) * Y).sum((-2, -1))
