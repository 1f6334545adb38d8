"""Hessian-free steps: conjugate gradient on the Gauss-Newton curvature, as specified (TTT_HF) and with damping.

A vector is (G, P): for each of G heads all its fast weights, laid end to end. `product` applies the curvature to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]

DAMPING_RANGE = (1e-4, 1e4)


class Solution(NamedTuple):
    """A step and how it was found."""

    u: Tensor  # (G, P)
    residual: Tensor  # r.r of the last iteration, (G,); NaN for a head whose right-hand side is zero
    live: Tensor  # (iterations, G): 1 while a head still moves, 0 once its early stop has fired
    iterations: int


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Scalar product per head: (G, P), (G, P) -> (G, 1)."""
    return (a * b).sum(-1, keepdim=True)


def conjugate_gradient(product: Product, b: Tensor, iterations: int) -> Solution:
    """Approximate G^-1 b by undamped conjugate gradient with the per-head early stop of TTT_HF.

    From the second iteration on a head stops for good when its indicator sum(alpha p.b) / sqrt(sum r.r) no longer
    grows; when three quarters of all heads have stopped, every head stops after that iteration. A zero right-hand
    side gives a zero step. K <= 4 agrees to 2e-6 between float32 implementations, K = 8 only to about 4e-4.

    Args:
        product: v -> G v, both (G, P).
        b: right-hand side (G, P).
        iterations: K >= 1.
    """
    x = torch.zeros_like(b)
    r = p = b
    s = dot(b, b)
    live = torch.ones_like(s)
    running = torch.ones((), dtype=b.dtype, device=b.device)
    history: list[Tensor] = []
    numerator = denominator = indicator = torch.zeros_like(s)
    for k in range(iterations):
        Ap = product(p)
        alpha = s / dot(p, Ap)
        gained, left = clean(dot(p, b) * alpha), clean(s)
        if k == 0:
            numerator, denominator = gained, left
            indicator = numerator / denominator.sqrt()
        else:
            numerator, denominator = numerator + gained * live, denominator + left * live
            new = numerator / denominator.sqrt()
            live = live * (new > indicator)  # NaN compares false: such a head stops
            indicator = new
        p = clean(p)
        alpha = clean(alpha) * live * running
        x = x + alpha * p
        r = r - alpha * Ap
        s_next = dot(r, r)
        p = r + (s_next / s) * p
        s = s_next
        history.append(live.squeeze(-1))
        # `running` freezes every head without a branch on the device; a CPU can leave at once.
        running = running * ((live == 0).to(b.dtype).mean() < 0.75)
        if not b.is_cuda and not running:
            break
    return Solution(x, s.squeeze(-1), torch.stack(history), len(history))


def clean(a: Tensor) -> Tensor:
    """NaN and infinities become 0."""
    return torch.nan_to_num(a, nan=0.0, posinf=0.0, neginf=0.0)


def damped_conjugate_gradient(product: Product, b: Tensor, damping: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Approximate (G + damping I)^-1 b by K plain conjugate-gradient iterations; each head on its own.

    Args:
        product: v -> G v, both (G, P).
        b: right-hand side (G, P).
        damping: (G,), positive.
        iterations: K >= 1.

    Returns:
        The step u (G, P), and the decrease b.u - 1/2 u.(G + damping I)u that the quadratic model predicts (G,).
    """
    mu = damping.unsqueeze(-1)
    x = torch.zeros_like(b)
    r = p = b
    s = dot(b, b)
    for _ in range(iterations):
        Ap = product(p) + mu * p
        curvature = dot(p, Ap)
        alpha = torch.where(curvature > 0, s / torch.where(curvature > 0, curvature, 1), 0)
        x = x + alpha * p
        r = r - alpha * Ap
        s_next = dot(r, r)
        p = r + torch.where(s > 0, s_next / torch.where(s > 0, s, 1), 0) * p
        s = s_next
    # For iterates of conjugate gradient from zero u.(G + mu I)u = u.(b - r), so no further product is needed.
    return x, 0.5 * dot(x, b + r).squeeze(-1)


def adapt_damping(damping: Tensor, actual: Tensor, predicted: Tensor) -> Tensor:
    """Levenberg-Marquardt: more damping where the quadratic model promised too much, less where it held.

    The reduction ratio actual / predicted below 1/4 multiplies damping by 3/2, above 3/4 by 2/3 (Martens, "Deep
    learning via Hessian-free optimization", 2010), within 1e-4 to 1e4. A head that predicts nothing keeps its own.

    Args:
        damping: (G,).
        actual: decrease of the objective on the mini-batch (G,).
        predicted: decrease of the damped quadratic model (G,).
    """
    ratio = actual / torch.where(predicted > 0, predicted, 1)
    factor = torch.where(ratio < 0.25, 1.5, torch.where(ratio > 0.75, 2 / 3, 1.0))
    return torch.where(predicted > 0, damping * factor, damping).clamp(*DAMPING_RANGE)
