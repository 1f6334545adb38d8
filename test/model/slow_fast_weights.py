"""Hessian-free fast weights in float64 from their equations: losses by autograd, curvature as a dense matrix."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def bend(x: Tensor) -> Tensor:
    """GELU in its tanh form."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


class SlowFastWeights:
    """TTT_HF over a stream of one layer's weights by name; one head and one row at a time."""

    def __init__(self, weights, heads: int, m: int, lag: int, base_lr: float, lag_weight: float, iterations: int):
        self.w = {name: t.detach().double() for name, t in weights.items()}
        self.heads, self.m, self.lag, self.iterations = heads, m, lag, iterations
        self.base_lr, self.lag_weight = base_lr, lag_weight
        self.D = len(self.w["wq.bias"]) // heads
        # Heads are groups of four tensors laid end to end: W1, b1, W2, b2.
        self.fast = [torch.cat([self.w[n][h].flatten() for n in ("W1", "b1", "W2", "b2")]) for h in range(heads)]

    def inner(self, fast: Tensor, x: Tensor) -> Tensor:
        """Z2 = GELU(x W1 + b1) W2 + b2 of one row."""
        D = self.D
        W1, b1, W2, b2 = fast.split([D * D, D, D * D, D])
        return bend(x @ W1.view(D, D) + b1) @ W2.view(D, D) + b2

    def normed(self, z: Tensor, h: int) -> Tensor:
        """Layer norm of one row: gamma (z - mean) / sqrt(biased variance + eps) + beta."""
        centred = z - z.mean()
        hat = centred / torch.sqrt((centred**2).mean() + 1e-8)
        return self.w["ttt_norm_weight"][h] * hat + self.w["ttt_norm_bias"][h]

    def target(self, u: Tensor, h: int) -> Tensor:
        """The target's norm: unbiased deviation, eps outside the root."""
        centred = u - u.mean()
        deviation = torch.sqrt((centred**2).sum() / (self.D - 1))
        return self.w["ttt_norm_weight"][h] * centred / (deviation + 1e-8) + self.w["ttt_norm_bias"][h]

    def head(self, name: str, x: Tensor, h: int, place=None) -> Tensor:
        """One head's projection of one row; with a place (t, y, x): unit length, adjacent channels turned."""
        y = (self.w[name + ".weight"] @ x + self.w[name + ".bias"])[h * self.D : (h + 1) * self.D]
        if place is None:
            return y
        y = y / max(float(y.norm()), 1e-12)
        side = 3 * (self.D // 8)
        angles = []
        for count, at in zip((self.D // 4, side, side), place, strict=True):
            angles += [at * 10_000.0 ** (-2 * i / count) for i in range(count // 2)]
        out = []
        for j, angle in enumerate(angles):
            a, b = y[2 * j], y[2 * j + 1]
            out += [a * math.cos(angle) - b * math.sin(angle), a * math.sin(angle) + b * math.cos(angle)]
        return torch.stack(out)

    def update(self, rows, places, sources, seen) -> None:
        """One mini-batch: solve G u = b by K steps of conjugate gradient for each head, then W <- W - u."""
        right, products = [], []
        for h in range(self.heads):
            fast = self.fast[h].clone().requires_grad_()
            loss, G = torch.zeros((), dtype=torch.float64), torch.zeros(len(fast), len(fast), dtype=torch.float64)
            for x, place, source, known in zip(rows, places, sources, seen, strict=True):
                key = self.head("wk", x, h, place)
                rate = torch.sigmoid(
                    self.w["learnable_ttt_lr_weight"][h, 0] @ x + self.w["learnable_ttt_lr_bias"][h, 0]
                )
                rate = self.base_lr * rate / self.D / self.m
                got = self.normed(self.inner(fast, key), h)
                loss = loss + rate / 2 * ((got - self.target(self.head("wv", x, h) - key, h)) ** 2).sum()
                if known:
                    far = self.head("lag_linear", source, h) - self.head("lag_linear_key", x, h, place)
                    loss = loss + self.lag_weight * rate / 2 * ((got - self.target(far, h)) ** 2).sum()
                J = torch.autograd.functional.jacobian(lambda f, key=key: self.inner(f, key), fast.detach())
                G = G + J.T @ J
            right.append(torch.autograd.grad(loss, fast)[0])
            products.append(G)
        for h, u in enumerate(self.solve(products, right)):
            self.fast[h] = self.fast[h] - u

    def solve(self, products, right):
        """Conjugate gradient with the heads' own early stop and the one common to all."""
        heads = range(self.heads)
        x, r, p = ([b * f for b in right] for f in (0, 1, 1))
        s, live = [b @ b for b in right], [1.0] * self.heads
        num, den, ind = ([0.0] * self.heads for _ in range(3))
        for k in range(self.iterations):
            for h in heads:
                Ap = products[h] @ p[h]
                a = s[h] / (p[h] @ Ap)
                gained, left = float((p[h] @ right[h]) * a), float(s[h])
                if k == 0:
                    num[h], den[h] = gained, left
                    ind[h] = num[h] / math.sqrt(den[h])
                else:
                    num[h], den[h] = num[h] + gained * live[h], den[h] + left * live[h]
                    new = num[h] / math.sqrt(den[h])
                    live[h] *= float(new > ind[h])
                    ind[h] = new
                a = a * live[h]
                x[h], r[h] = x[h] + a * p[h], r[h] - a * Ap
                after = r[h] @ r[h]
                p[h] = r[h] + after / s[h] * p[h]
                s[h] = after
            if sum(v == 0 for v in live) / self.heads >= 0.75:
                break
        return x

    def read(self, x: Tensor, place) -> Tensor:
        """One row through the weights as they are: x + tanh(alpha) wo(LN(q + f(q)))."""
        parts = []
        for h in range(self.heads):
            q = self.head("wq", x, h, place)
            parts.append(q + self.normed(self.inner(self.fast[h], q), h))
        joined = torch.cat(parts)
        centred = joined - joined.mean()
        hat = centred / torch.sqrt((centred**2).mean() + 1e-6)
        hat = hat * self.w["post_norm.weight"] + self.w["post_norm.bias"]
        return x + torch.tanh(self.w["gating_alpha"]) * (self.w["wo.weight"] @ hat + self.w["wo.bias"])

    def stream(self, rows: Tensor, grid: tuple[int, int]) -> tuple[Tensor, int]:
        """A whole stream: every row's output, and how many rows completed mini-batches; no row is padded."""
        area = grid[0] * grid[1]
        places = [(n // area, n % area // grid[1], n % grid[1]) for n in range(len(rows))]
        sources = [rows[n - self.lag] if n >= self.lag else torch.zeros_like(rows[0]) for n in range(len(rows))]
        seen = [n >= self.lag for n in range(len(rows))]
        out, whole = [], len(rows) // self.m * self.m
        for low in range(0, whole, self.m):
            here = slice(low, low + self.m)
            self.update(rows[here], places[here], sources[here], seen[here])
            out += [self.read(rows[n], places[n]) for n in range(low, low + self.m)]
        out += [self.read(rows[n], places[n]) for n in range(whole, len(rows))]
        return torch.stack(out), whole

    def slices(self, rows: Tensor, grid: tuple[int, int], size: int) -> Tensor:
        """The release's way: slices filled up with zero rows that train the weights too."""
        area, before, out = grid[0] * grid[1], rows[:0], []
        for low in range(0, len(rows), size):
            x = rows[low : low + size]
            count = len(x)
            x = torch.cat([x, torch.zeros(-count % self.m, x.shape[1], dtype=x.dtype)])
            numbers = [low + i for i in range(len(x))]
            places = [(n // area, n % area // grid[1], n % grid[1]) for n in numbers]
            joined = torch.cat([before, x])
            sources, seen = [], []
            for i in range(len(x)):
                at = len(before) + i - self.lag
                sources.append(joined[at] if at >= 0 else torch.zeros_like(x[0]))
                seen.append(i >= self.lag if not len(before) else len(before) >= self.lag)
            done = []
            for start in range(0, len(x), self.m):
                here = slice(start, start + self.m)
                self.update(x[here], places[here], sources[here], seen[here])
                done += [self.read(x[n], places[n]) for n in range(start, start + self.m)]
            out += done[:count]
            before = x
        return torch.stack(out)
