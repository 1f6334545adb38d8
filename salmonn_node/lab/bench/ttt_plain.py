"""Plain TTT layer, written operation by operation as the public release computes it: the baseline for our layer.

Each formula uses elementary tensor operations: per-token rates expanded to an m x m matrix, GELU' and the backward pass
of the layer norm as chains of element-wise operations, and one tensor per part of a CG vector.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from salmonn_node.ttt.layer import TTTLayer
from salmonn_node.ttt.rotary import rotary_angles


def plain_mini_batch(layer: TTTLayer, x: Tensor, source: Tensor, places: Tensor, weights: list[Tensor]) -> Tensor:
    """Process one mini-batch of one stream: x, source (1, m, hidden). Replaces `weights` [W1, b1, W2, b2] in place."""
    config = layer.config
    m, heads, D = x.shape[1], config.num_heads, config.head_dim
    gamma, beta = layer.ttt_norm_weight.reshape(1, heads, 1, D), layer.ttt_norm_bias.reshape(1, heads, 1, D)

    def split(y: Tensor) -> Tensor:
        return y.reshape(1, m, heads, D).permute(0, 2, 1, 3).contiguous()

    def unit(y: Tensor) -> Tensor:
        return y / torch.clamp(torch.linalg.vector_norm(y, dim=-1, keepdim=True), min=1e-12)

    def turned(y: Tensor) -> Tensor:
        pairs = torch.view_as_complex(y.float().reshape(1, heads, m, D // 2, 2))
        return torch.view_as_real(pairs * rotation).reshape(1, heads, m, D).type_as(y)

    def normalised(u: Tensor) -> Tensor:
        return gamma * ((u - u.mean(-1, keepdim=True)) / (u.std(-1, keepdim=True) + 1e-8)) + beta

    rotation = rotary_angles(places, D).reshape(1, 1, m, D // 2)
    q, k, v = split(layer.wq(x)), split(layer.wk(x)), split(layer.wv(x))
    q, k = turned(unit(q)), turned(unit(k))
    target_plus = normalised(v - k) + k
    lag_key = turned(unit(split(layer.lag_linear_key(x))))
    lag_plus = normalised(split(layer.lag_linear(source)) - lag_key) + lag_key
    gate = torch.sigmoid(
        torch.einsum("bnc,hdc->bhnd", x, layer.learnable_ttt_lr_weight) + layer.learnable_ttt_lr_bias[:, None]
    )
    rate = config.base_lr * gate.permute(0, 1, 3, 2) / D
    eta = ((torch.ones(m, 1, dtype=x.dtype) / m) * rate).clone()  # (1, heads, m, m)
    eta_token = eta[:, :, -1, :, None]

    W1, b1, W2, b2 = weights
    Z1 = k @ W1 + b1
    X2 = F.gelu(Z1, approximate="tanh")
    Z2 = X2 @ W2 + b2
    target, lag_target = target_plus - k, lag_plus - lag_key
    g = _norm_backward(Z2, target, gamma, beta) + config.lag_weight * _norm_backward(Z2, lag_target, gamma, beta)
    gZ1 = g @ W2.transpose(-2, -1) * _gelu_slope(Z1)
    step = [
        (eta_token * k).transpose(-1, -2) @ gZ1,
        torch.sum(eta_token * gZ1, dim=-2, keepdim=True),
        (eta_token * X2).transpose(-1, -2) @ g,
        torch.sum(eta_token * g, dim=-2, keepdim=True),
    ]
    if config.optimizer == "hf":
        step = _plain_cg(step, k, Z1, X2, W2, config.cg_iterations)
    weights[:] = [w - s for w, s in zip(weights, step, strict=True)]
    W1, b1, W2, b2 = weights
    Z2 = F.gelu(q @ W1 + b1, approximate="tanh") @ W2 + b2
    mean, variance = Z2.mean(-1, keepdim=True), Z2.var(-1, keepdim=True, unbiased=False)
    read = q + gamma * ((Z2 - mean) / torch.sqrt(variance + 1e-8)) + beta
    out = layer.wo(layer.post_norm(read.permute(0, 2, 1, 3).reshape(1, m, heads * D)))
    return x + torch.tanh(layer.gating_alpha) * out


def _gelu_slope(z: Tensor) -> Tensor:
    t = torch.tanh(0.79788456 * z * (1 + 0.044715 * z * z))
    return 0.5 * z * ((1 - t * t) * (0.79788456 + 0.1070322243 * z * z)) + 0.5 * (1 + t)


def _norm_backward(z: Tensor, target: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    D = z.shape[-1]
    mean, variance = z.mean(-1, keepdim=True), z.var(-1, keepdim=True, unbiased=False)
    deviation = torch.sqrt(variance + 1e-8)
    x_hat = (z - mean) / deviation
    a = (gamma * x_hat + beta - target) * gamma
    inner = D * a - a.sum(-1, keepdim=True) - x_hat * (a * x_hat).sum(-1, keepdim=True)
    return (1.0 / D) * inner / deviation


def _plain_cg(b: list[Tensor], X1: Tensor, Z1: Tensor, X2: Tensor, W2: Tensor, iterations: int) -> list[Tensor]:
    """Conjugate gradient with one tensor per part. GELU' is computed again in each product."""

    def dot(a: list[Tensor], c: list[Tensor]) -> Tensor:
        return sum((p * q).sum((-2, -1), keepdim=True) for p, q in zip(a, c, strict=True))  # type: ignore[return-value]

    def product(v: list[Tensor]) -> list[Tensor]:
        dZ1 = X1 @ v[0] + v[1]
        dZ2 = (dZ1 * _gelu_slope(Z1)) @ W2 + X2 @ v[2] + v[3]
        r = (dZ2 @ W2.transpose(-2, -1)) * _gelu_slope(Z1)
        return [
            X1.transpose(-2, -1) @ r, r.sum(-2, keepdim=True), X2.transpose(-2, -1) @ dZ2, dZ2.sum(-2, keepdim=True)
        ]  # fmt: skip

    x = [torch.zeros_like(part) for part in b]
    r, p = [part.clone() for part in b], [part.clone() for part in b]
    s = dot(r, r)
    live = torch.ones_like(s)
    for k in range(iterations):
        Ap = product(p)
        alpha = s / dot(p, Ap)
        gained, left = torch.nan_to_num(dot(p, b) * alpha), torch.nan_to_num(s)
        if k == 0:
            numerator, denominator = gained, left
            indicator = numerator / denominator.sqrt()
        else:
            numerator, denominator = numerator + gained * live, denominator + left * live
            live = live * (numerator / denominator.sqrt() > indicator)
            indicator = numerator / denominator.sqrt()
        p = [torch.nan_to_num(part) for part in p]
        alpha = torch.nan_to_num(alpha) * live
        x = [a + alpha * c for a, c in zip(x, p, strict=True)]
        r = [a - alpha * c for a, c in zip(r, Ap, strict=True)]
        s_next = dot(r, r)
        p = [a + (s_next / s) * c for a, c in zip(r, p, strict=True)]
        s = s_next
        if (live == 0).float().mean() >= 0.75:
            break
    return x
