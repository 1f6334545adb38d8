"""Hessian-free solvers: conjugate gradient on the Gauss-Newton curvature, as in TTT_HF and with damping.

Vectors have shape (G, P): for each of G heads, all P fast weights in one row. `product` applies the curvature.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]

DAMPING_RANGE = (1e-4, 1e4)


class Solution(NamedTuple):
    """A step, and how the solver found it."""

    u: Tensor  # (G, P)
    residual: Tensor  # (G,), r.r of the last iteration; NaN for a head with a zero right-hand side
    live: Tensor  # (iterations, G), 1 while a head still moves, 0 after its early stop
    iterations: int


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Dot product per head: (G, P), (G, P) -> (G, 1)."""
    return (a * b).sum(-1, keepdim=True)


def conjugate_gradient(product: Product, b: Tensor, iterations: int) -> Solution:
    """Approximate G^-1 b by undamped conjugate gradient with the per-head early stop of TTT_HF.

    From the second iteration on, a head stops for good when its indicator sum(alpha p.b) / sqrt(sum r.r) no longer
    grows. When three quarters of all heads have stopped, every head stops after that iteration. A zero right-hand
    side gives a zero step. Float32 implementations agree to 2e-6 for K <= 4, but only to about 4e-4 for K = 8.

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
            live = live * (new > indicator)  # NaN compares false, so the head stops
            indicator = new
        p = clean(p)
        alpha = clean(alpha) * live * running
        x = x + alpha * p
        r = r - alpha * Ap
        s_next = dot(r, r)
        p = r + (s_next / s) * p
        s = s_next
        history.append(live.squeeze(-1))
        # `running` freezes every head without a branch on the device. On a CPU we can leave the loop at once.
        running = running * ((live == 0).to(b.dtype).mean() < 0.75)
        if not b.is_cuda and not running:
            break
    return Solution(x, s.squeeze(-1), torch.stack(history), len(history))


def clean(a: Tensor) -> Tensor:
    """Replace NaN and infinities by 0."""
    return torch.nan_to_num(a, nan=0.0, posinf=0.0, neginf=0.0)


def damped_conjugate_gradient(product: Product, b: Tensor, damping: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Approximate (G + damping I)^-1 b by K iterations of plain conjugate gradient, independently for each head.

    Args:
        product: v -> G v, both (G, P).
        b: right-hand side (G, P).
        damping: (G,), positive.
        iterations: K >= 1.

    Returns:
        The step u (G, P), and the decrease predicted by the quadratic model, b.u - 1/2 u.(G + damping I)u (G,).
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
    # Conjugate gradient from zero gives u.(G + mu I)u = u.(b - r), so the prediction needs no further product.
    return x, 0.5 * dot(x, b + r).squeeze(-1)


def adapt_damping(damping: Tensor, actual: Tensor, predicted: Tensor) -> Tensor:
    """Adapt the damping by the Levenberg-Marquardt rule: raise it where the quadratic model promised too much.

    A reduction ratio actual / predicted below 1/4 multiplies the damping by 3/2; above 3/4, by 2/3 (Martens, "Deep
    learning via Hessian-free optimization", 2010). The damping stays within 1e-4 to 1e4. A head with a predicted
    decrease of zero keeps its damping.

    Args:
        damping: (G,).
        actual: measured decrease of the objective on the mini-batch (G,).
        predicted: decrease predicted by the damped quadratic model (G,).
    """
    ratio = actual / torch.where(predicted > 0, predicted, 1)
    factor = torch.where(ratio < 0.25, 1.5, torch.where(ratio > 0.75, 2 / 3, 1.0))
    return torch.where(predicted > 0, damping * factor, damping).clamp(*DAMPING_RANGE)
