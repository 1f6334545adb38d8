"""Inner model of one head, an MLP with a layer norm: forward pass, closed-form gradient, Gauss-Newton product.

    Z1 = X W1 + b1,  X2 = GELU(Z1),  Z2 = X2 W2 + b2,  Y = gamma * LN(Z2) + beta    (X is N rows of D channels)

Shapes: G = B * H heads of all streams, N rows, D channels, F hidden channels. Every function is differentiable, so
training can backpropagate through an update. The equations are those of "Learning to (Learn at Test Time)"
(arXiv:2407.04620), with the tanh form of GELU and a layer norm whose epsilon of 1e-8 is inside the square root.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

LN_EPS = 1e-8


class InnerWeights(NamedTuple):
    """Fast weights, or anything of the same shapes, such as a gradient or a step."""

    W1: Tensor  # (G, D, F), used as X @ W1
    b1: Tensor  # (G, 1, F)
    W2: Tensor  # (G, F, D)
    b2: Tensor  # (G, 1, D)

    def to(self, dtype: torch.dtype) -> InnerWeights:
        """Cast every part."""
        return self if self.W1.dtype == dtype else InnerWeights(*(part.to(dtype) for part in self))

    def merged(self) -> InnerWeights:
        """Merge streams and heads into one dimension: (B, H, ...) -> (G, ...)."""
        return InnerWeights(*(part.flatten(0, 1) for part in self))

    def split(self, batch: int) -> InnerWeights:
        """Split streams and heads: (G, ...) -> (B, H, ...)."""
        return InnerWeights(*(part.unflatten(0, (batch, -1)) for part in self))

    def flat(self) -> Tensor:
        """Concatenate the four parts of each head into one vector: (G, P)."""
        return torch.cat([part.flatten(1) for part in self], dim=-1)

    def unflat(self, vector: Tensor) -> InnerWeights:
        """Return views into a (G, P) vector in the shapes of these weights."""
        parts = vector.split([part[0].numel() for part in self], dim=-1)
        return InnerWeights(*(v.unflatten(-1, part.shape[1:]) for v, part in zip(parts, self, strict=True)))


class Norm(NamedTuple):
    """Affine parameters of the layer norm. The targets use them too."""

    gamma: Tensor  # (G, 1, D)
    beta: Tensor  # (G, 1, D)

    def scaled(self, x_hat: Tensor) -> Tensor:
        """Output gamma * x_hat + beta for x_hat (..., G, N, D)."""
        return torch.addcmul(self.beta, x_hat, self.gamma)


class Linearisation(NamedTuple):
    """Forward pass of rows X at weights W, kept for the gradient and the Gauss-Newton product."""

    X1: Tensor  # (G, N, D)
    X2: Tensor  # (G, N, F)
    slope: Tensor  # GELU'(Z1), (G, N, F)
    Z2: Tensor  # (G, N, D)
    x_hat: Tensor  # LN(Z2), (G, N, D)
    mean: Tensor  # (G, N, 1)
    rstd: Tensor  # (G, N, 1)
    W2: Tensor  # (G, F, D)


class Objective(NamedTuple):
    """Objective: sum over rows of rate * [1/2 |Y - R|^2 + pull/2 |Y - R_lag|^2], stored as pooled = R + pull R_lag."""

    pooled: Tensor  # (G, N, D)
    pull: Tensor | None  # lambda * M, broadcastable to (G, N, 1); None without a long-span term
    rate: Tensor  # (G, N, 1)


def product(X: Tensor, W: Tensor, b: Tensor | None = None) -> Tensor:
    """Compute X @ W (+ b) for each head: (G, N, D), (G, D, F), (G, 1, F) -> (G, N, F)."""
    return torch.bmm(X, W) if b is None else torch.baddbmm(b, X, W)


def normalise_target(u: Tensor, norm: Norm) -> Tensor:
    """Targets gamma (u - mean) / (std + 1e-8) + beta for u (..., G, N, D). Unlike the layer norm, std is unbiased."""
    D = u.shape[-1]
    x_hat, _, rstd = torch.native_layer_norm(u, (D,), None, None, 1e-30)
    # x_hat = (u - mean) rstd, and std = sqrt(D / (D - 1)) / rstd. On a GPU rstd is float32 even for bf16 rows.
    return norm.scaled(x_hat / (rstd * LN_EPS + math.sqrt(D / (D - 1))).to(x_hat.dtype))


def linearise(X: Tensor, W: InnerWeights) -> Linearisation:
    """Run the inner model on rows X (G, N, D) and keep the intermediate values that its derivatives need."""
    Z1 = product(X, W.W1, W.b1)
    X2 = F.gelu(Z1, approximate="tanh")
    slope = torch.ops.aten.gelu_backward(torch.ones_like(Z1), Z1, approximate="tanh")
    Z2 = product(X2, W.W2, W.b2)
    x_hat, mean, rstd = torch.native_layer_norm(Z2, Z2.shape[-1:], None, None, LN_EPS)
    return Linearisation(X, X2, slope, Z2, x_hat, mean, rstd, W.W2)


def normalised_output(X: Tensor, W: InnerWeights) -> Tensor:
    """LN(f(X)) for rows X (G, N, D)."""
    Z2 = product(F.gelu(product(X, W.W1, W.b1), approximate="tanh"), W.W2, W.b2)
    return torch.native_layer_norm(Z2, Z2.shape[-1:], None, None, LN_EPS)[0]


def evaluate(X: Tensor, W: InnerWeights, norm: Norm) -> Tensor:
    """Y = gamma LN(f(X)) + beta for rows X (G, N, D)."""
    return norm.scaled(normalised_output(X, W))


def output_gradient(at: Linearisation, goal: Objective, norm: Norm) -> tuple[Tensor, Tensor]:
    """Gradients of the objective with respect to Z1 (G, N, F) and Z2 (G, N, D), rates included.

    Backpropagates rate * g, with g = (Y - R) + pull (Y - R_lag), through gamma, the layer norm, W2 and GELU.
    """
    Y = norm.scaled(at.x_hat)
    g = (Y if goal.pull is None else Y * (1 + goal.pull)) - goal.pooled
    a = g * norm.gamma * goal.rate
    gZ2 = torch.ops.aten.native_layer_norm_backward(
        a, at.Z2, at.Z2.shape[-1:], at.mean, at.rstd, None, None, [True, False, False]
    )[0]
    return product(gZ2, at.W2.mT) * at.slope, gZ2


def gradient(at: Linearisation, goal: Objective, norm: Norm) -> InnerWeights:
    """Gradient of the objective with respect to the fast weights: the step that SGD subtracts."""
    return _pull_back(at, *output_gradient(at, goal, norm))


def gauss_newton_product(at: Linearisation, v: InnerWeights) -> InnerWeights:
    """G v, where G = sum over rows of J^T J. J is the Jacobian of Z2 (before the layer norm) in the fast weights."""
    dZ1 = product(at.X1, v.W1, v.b1)
    dZ2 = torch.baddbmm(product(at.X2, v.W2, v.b2), dZ1 * at.slope, at.W2)
    return _pull_back(at, product(dZ2, at.W2.mT) * at.slope, dZ2)


def _pull_back(at: Linearisation, gZ1: Tensor, gZ2: Tensor) -> InnerWeights:
    """Apply J^T to row gradients: [X1^T gZ1, sum gZ1, X2^T gZ2, sum gZ2]."""
    return InnerWeights(
        product(at.X1.mT, gZ1), gZ1.sum(1, keepdim=True), product(at.X2.mT, gZ2), gZ2.sum(1, keepdim=True)
    )


def objective_value(x_hat: Tensor, goal: Objective, norm: Norm) -> Tensor:
    """Objective at x_hat = LN(f(X)), (G, N, D) -> (G,), up to a constant that does not depend on the weights."""
    Y = norm.scaled(x_hat)
    weight = 1 if goal.pull is None else 1 + goal.pull
    return (goal.rate * (0.5 * weight * Y - goal.pooled) * Y).sum((-2, -1))
