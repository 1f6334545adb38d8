"""Closed-form gradient and Gauss-Newton product against torch.func in float64, and back-propagation through both."""

from __future__ import annotations

import pytest
import torch
from torch.func import grad, jvp, vjp
from torch.nn import functional as F

from salmonn_node.ttt import inner_model
from salmonn_node.ttt.inner_model import InnerWeights, Norm, Objective

G, N, D, INNER = 6, 10, 6, 8


@pytest.fixture
def problem():
    torch.manual_seed(0)
    shapes = ((G, D, INNER), (G, 1, INNER), (G, INNER, D), (G, 1, D))
    weights = InnerWeights(*(torch.randn(s, dtype=torch.float64) * 0.5 for s in shapes))
    rows = {name: torch.randn(G, N, D, dtype=torch.float64) for name in ("X", "R", "R_lag")}
    gamma, beta = (torch.randn(G, 1, D, dtype=torch.float64) for _ in range(2))
    rate = torch.rand(G, N, 1, dtype=torch.float64)
    pull = 0.3 * (torch.rand(N, 1) > 0.4).double()
    return weights, rows, gamma, beta, rate, pull


def slow_output(X, W1, b1, W2, b2):
    Z1 = X @ W1 + b1
    inner = (2 / torch.pi) ** 0.5 * (Z1 + 0.044715 * Z1**3)
    return (0.5 * Z1 * (1 + torch.tanh(inner))) @ W2 + b2


def slow_norm(Z2, gamma, beta):
    mean = Z2.mean(-1, keepdim=True)
    return gamma * (Z2 - mean) * (Z2.var(-1, correction=0, keepdim=True) + 1e-8) ** -0.5 + beta


def slow_objective(weights, rows, gamma, beta, rate, pull):
    Y = slow_norm(slow_output(rows["X"], *weights), gamma, beta)
    near, far = (((Y - rows[name]) ** 2).sum(-1, keepdim=True) for name in ("R", "R_lag"))
    return (rate * (near + pull * far) / 2).sum((-2, -1))


def goal_of(rows, rate, pull):
    return Objective(rows["R"] + pull * rows["R_lag"], pull, rate)


def test_gradient_is_the_objectives(problem):
    weights, rows, gamma, beta, rate, pull = problem
    at = inner_model.linearise(rows["X"], weights)
    ours = inner_model.gradient(at, goal_of(rows, rate, pull), Norm(gamma, beta))
    want = grad(lambda w: slow_objective(w, rows, gamma, beta, rate, pull).sum())(weights)
    for a, b in zip(ours, want, strict=True):
        assert torch.allclose(a, b, atol=1e-11)


def test_objective_differs_by_a_constant(problem):
    weights, rows, gamma, beta, rate, pull = problem
    other = InnerWeights(*(w * 0.9 for w in weights))
    ours, want = [], []
    for w in (weights, other):
        at = inner_model.linearise(rows["X"], w)
        ours.append(inner_model.objective_value(at.x_hat, goal_of(rows, rate, pull), Norm(gamma, beta)))
        want.append(slow_objective(w, rows, gamma, beta, rate, pull))
    assert torch.allclose(ours[0] - ours[1], want[0] - want[1], atol=1e-11)


def test_gauss_newton_product_is_the_jacobians(problem):
    weights, rows, *_ = problem
    v = InnerWeights(*(torch.randn_like(w) for w in weights))
    ours = inner_model.gauss_newton_product(inner_model.linearise(rows["X"], weights), v)

    def f(*w):
        return slow_output(rows["X"], *w)

    _, tangent = jvp(f, tuple(weights), tuple(v))
    _, pull_back = vjp(f, *weights)
    for a, b in zip(ours, pull_back(tangent), strict=True):
        assert torch.allclose(a, b, atol=1e-11)


def test_target_normalisation_uses_the_unbiased_deviation(problem):
    _, rows, gamma, beta, *_ = problem
    u = rows["R"]
    want = gamma * (u - u.mean(-1, keepdim=True)) / (u.std(-1, keepdim=True) + 1e-8) + beta
    assert torch.allclose(inner_model.normalise_target(u, Norm(gamma, beta)), want, atol=1e-12)
    flat = inner_model.normalise_target(torch.ones_like(u), Norm(gamma, beta))
    assert torch.allclose(flat, beta.expand_as(u), atol=1e-12)


def test_training_goes_through_gradient_and_product(problem):
    weights, rows, gamma, beta, rate, pull = problem
    X = rows["X"][:1, :4].requires_grad_()
    small = [w[:1].clone().requires_grad_() for w in weights]
    goal = Objective(rows["R"][:1, :4], None, rate[:1, :4])

    def steps(X, *w):
        at = inner_model.linearise(X, InnerWeights(*w))
        g = inner_model.gradient(at, goal, Norm(gamma[:1], beta[:1]))
        return (*g, *inner_model.gauss_newton_product(at, g))

    assert torch.autograd.gradcheck(steps, (X, *small), atol=1e-6)


def test_fast_weights_use_the_tanh_form_of_gelu(problem):
    weights, rows, gamma, beta, *_ = problem
    ours = inner_model.evaluate(rows["X"], weights, Norm(gamma, beta))
    assert torch.allclose(ours, slow_norm(slow_output(rows["X"], *weights), gamma, beta), atol=1e-11)
    erf = F.gelu(rows["X"] @ weights.W1 + weights.b1) @ weights.W2 + weights.b2
    assert not torch.allclose(ours, slow_norm(erf, gamma, beta), atol=1e-5)
