"""Conjugate gradient against a dense solve and a slow reference with the early stop; damping against its rule."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from salmonn_node.ttt import hessian_free, inner_model
from salmonn_node.ttt.inner_model import InnerWeights, Norm, Objective


def network_problem(seed: int, heads: int = 4, norms: float = 1.5):
    """Curvature and right-hand side of an inner model; token norms drawn lognormal make heads stop early."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    D, inner, rows = 6, 6, 16
    weights = InnerWeights(draw(heads, D, inner), draw(heads, 1, inner), draw(heads, inner, D), draw(heads, 1, D))
    X = draw(heads, rows, D) * torch.exp(norms * draw(heads, rows, 1))
    at = inner_model.linearise(X, weights)
    goal = Objective(draw(heads, rows, D), None, torch.exp(norms * draw(heads, rows, 1)))
    b = inner_model.gradient(at, goal, Norm(1 + 0.1 * draw(heads, 1, D), 0.1 * draw(heads, 1, D)))
    return lambda v: inner_model.gauss_newton_product(at, b.unflat(v)).flat(), b.flat()


def dense(product, b):
    """The matrix behind a product, one per head: (H, P, P)."""
    P = b.shape[-1]
    eye = torch.eye(P, dtype=b.dtype)
    return torch.stack([product(eye[i].expand_as(b).contiguous()) for i in range(P)], dim=-1)


def clean(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def divide(a: float, b: float) -> float:
    if b == 0:
        return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a)
    return a / b


def slow_reference(G: torch.Tensor, b: torch.Tensor, K: int):
    """Head by head in Python floats; only the three-quarters rule looks across heads."""
    H = b.shape[0]
    heads = [
        {"x": torch.zeros_like(b[h]), "r": b[h].clone(), "p": b[h].clone(), "s": float(b[h] @ b[h]), "live": True}
        for h in range(H)
    ]
    masks = []
    for k in range(K):
        for h, head in enumerate(heads):
            Ap = G[h] @ head["p"]
            alpha = divide(head["s"], float(head["p"] @ Ap))
            gained, left = clean(float(head["p"] @ b[h]) * alpha), clean(head["s"])
            if k == 0:
                head["num"], head["den"] = gained, left
                head["ind"] = divide(gained, math.sqrt(left))
            else:
                if head["live"]:
                    head["num"] += gained
                    head["den"] += left
                indicator = divide(head["num"], math.sqrt(head["den"]))
                head["live"] = head["live"] and indicator > head["ind"]
                head["ind"] = indicator
            p = torch.tensor([clean(v) for v in head["p"].tolist()], dtype=b.dtype)
            alpha = clean(alpha) if head["live"] else 0.0
            head["x"] = head["x"] + alpha * p
            head["r"] = head["r"] - alpha * Ap
            s = float(head["r"] @ head["r"])
            head["p"] = head["r"] + divide(s, head["s"]) * p
            head["s"] = s
        masks.append([float(head["live"]) for head in heads])
        if sum(not head["live"] for head in heads) / H >= 0.75:
            break
    return torch.stack([head["x"] for head in heads]), torch.tensor(masks, dtype=b.dtype)


def test_solves_a_dense_problem():
    torch.manual_seed(0)
    factor = torch.randn(2, 7, 12, dtype=torch.float64)
    G = factor @ factor.mT + 0.5 * torch.eye(7, dtype=torch.float64)
    b = torch.randn(2, 7, dtype=torch.float64)
    want = torch.linalg.solve(G, b.unsqueeze(-1)).squeeze(-1)
    damping = torch.tensor([0.3, 2.0], dtype=torch.float64)
    damped_want = torch.linalg.solve(G + damping[..., None, None] * torch.eye(7), b.unsqueeze(-1)).squeeze(-1)

    def product(v):
        return (G @ v.unsqueeze(-1)).squeeze(-1)

    u, predicted = hessian_free.damped_conjugate_gradient(product, b, damping, 7)
    assert torch.allclose(u, damped_want, atol=1e-8)
    assert torch.allclose(predicted, 0.5 * (b * damped_want).sum(-1), atol=1e-8)
    undamped, _ = hessian_free.damped_conjugate_gradient(product, b, torch.zeros(2, dtype=torch.float64), 7)
    assert torch.allclose(undamped, want, atol=1e-7)


@pytest.mark.parametrize("K", [1, 2, 4])
def test_the_predicted_decrease_is_that_of_the_step_before_it_has_converged(K):
    product, b = network_problem(5, norms=0.0)
    damping = torch.full((4,), 0.7, dtype=torch.float64)
    u, predicted = hessian_free.damped_conjugate_gradient(product, b, damping, K)
    model = (b * u).sum(-1) - 0.5 * (u * (product(u) + 0.7 * u)).sum(-1)
    assert torch.allclose(predicted, model, rtol=1e-9)
    assert (predicted > 0).all()


def test_undamped_solution_descends_to_the_dense_one_when_no_head_stops():
    product, b = network_problem(3, norms=0.0)
    solution = hessian_free.conjugate_gradient(product, b, 4)
    assert solution.live.all()
    G = dense(product, b)
    model = [0.5 * x @ g @ x - x @ r for x, g, r in zip(solution.u, G, b, strict=True)]
    assert all(m < 0 for m in model)


# Rounding grows with K, so the last iterations of long runs differ between correct implementations: K stops at 5.
def test_the_residual_is_what_the_step_leaves_of_the_right_hand_side():
    product, b = network_problem(3, norms=0.0)
    found = hessian_free.conjugate_gradient(product, b, 2)
    left = b - product(found.u)

    assert found.residual.shape == (4,)
    assert bool(found.live.all())
    torch.testing.assert_close(found.residual, (left * left).sum(-1), rtol=1e-6, atol=1e-9)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), K=st.integers(1, 5), norms=st.sampled_from([1.0, 2.0, 3.0]))
def test_early_stop_follows_the_slow_reference(seed, K, norms):
    product, b = network_problem(seed, norms=norms)
    want, masks = slow_reference(dense(product, b), b, K)
    ours = hessian_free.conjugate_gradient(product, b, K)
    assert ours.live.shape[0] == len(masks)
    assert torch.equal(ours.live, masks)
    assert torch.allclose(ours.u, want, rtol=1e-4, atol=1e-5 * float(want.abs().max()))


def test_the_early_stop_fires_in_such_problems():
    fired = ended = 0
    for seed in range(40):
        product, b = network_problem(seed, norms=2.0)
        solution = hessian_free.conjugate_gradient(product, b, 8)
        fired += bool((solution.live == 0).any())
        ended += solution.iterations < 8
    assert fired > 5
    assert ended > 0


def test_a_zero_head_takes_no_step_and_harms_no_other():
    product, b = network_problem(1, norms=0.0)
    zeroed = b.clone()
    zeroed[2] = 0
    ours = hessian_free.conjugate_gradient(product, zeroed, 4)
    assert torch.equal(ours.u[2], torch.zeros_like(b[2]))
    assert torch.equal(ours.u[[0, 1, 3]], hessian_free.conjugate_gradient(product, b, 4).u[[0, 1, 3]])
    damped, predicted = hessian_free.damped_conjugate_gradient(product, zeroed, torch.ones(4).double(), 4)
    assert torch.equal(damped[2], torch.zeros_like(b[2]))
    assert predicted[2] == 0


@pytest.mark.parametrize(
    ("ratio", "factor"),
    [(-2.0, 1.5), (0.1, 1.5), (0.24, 1.5), (0.25, 1.0), (0.26, 1.0), (0.5, 1.0)]
    + [(0.74, 1.0), (0.75, 1.0), (0.76, 2 / 3), (0.9, 2 / 3), (3.0, 2 / 3)],
)
@pytest.mark.parametrize("promised", [2.0, 1.0, 0.01])
def test_levenberg_marquardt_rule(ratio, factor, promised):
    damping, predicted = torch.full((1,), 0.3), torch.full((1,), promised, dtype=torch.float64)
    adapted = hessian_free.adapt_damping(damping, ratio * predicted, predicted)
    assert adapted.item() == pytest.approx(0.3 * factor)
    assert hessian_free.adapt_damping(damping, predicted, torch.zeros(1)).item() == pytest.approx(0.3)
    assert hessian_free.adapt_damping(torch.full((1,), 9e3), -predicted, predicted).item() == pytest.approx(1e4)
    assert hessian_free.adapt_damping(torch.full((1,), 1.2e-4), predicted, predicted).item() == pytest.approx(1e-4)


def test_what_is_not_finite_becomes_zero_and_the_rest_stays():
    values = torch.tensor([math.nan, math.inf, -math.inf, 2.5, -1e30, 0.0])
    assert hessian_free.clean(values).tolist() == [0.0, 0.0, 0.0, 2.5, pytest.approx(-1e30), 0.0]
