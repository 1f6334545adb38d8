"""Update rules: what `damped` promises, and training through whole updates of the layer."""

from __future__ import annotations

import pytest
import torch

from salmonn_node.ttt import inner_model
from salmonn_node.ttt.layer import TTTConfig, TTTLayer

HIDDEN, M = 12, 6


def make_layer(**changes) -> TTTLayer:
    torch.manual_seed(0)
    settings = {"hidden_size": HIDDEN, "num_heads": 2, "mini_batch": M, "base_lr": 36.0, "lag_distance": 4}
    config = TTTConfig(**(settings | {"rotary": False, "state_dtype": torch.float64} | changes))
    layer = TTTLayer(config).double()
    with torch.no_grad():
        for weights in (layer.W1, layer.W2):
            weights.normal_(std=0.5)
    return layer


def project(layer: TTTLayer):
    torch.manual_seed(1)
    x, source = torch.randn(2, 1, M, HIDDEN, dtype=torch.float64)
    places = torch.zeros(1, M, 3, dtype=torch.int64)
    return layer.project(x, places, source, torch.ones(M, dtype=torch.bool))


@torch.no_grad()
def test_damped_step_does_not_depend_on_the_sgd_rate():
    weights = []
    for base_lr in (0.1, 50.0):
        layer = make_layer(optimizer="damped", base_lr=base_lr)
        state = layer.init_state()
        weights.append(layer.update(project(layer), state.weights.merged(), state.damping.flatten()).weights)
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


@torch.no_grad()
def test_damped_never_raises_the_objective_and_adapts():
    layer = make_layer(optimizer="damped", cg_iterations=8)
    rows, norm = project(layer), layer._norm(1)
    goal = rows.goal(layer.config.lag_weight)
    state = layer.init_state()
    weights, damping = state.weights.merged(), state.damping.flatten()
    values, dampings = [], [damping]
    for _ in range(12):
        values.append(inner_model.objective_value(inner_model.normalised_output(rows.key, weights), goal, norm))
        step = layer.update(rows, weights, damping)
        weights, damping = step.weights, step.damping
        dampings.append(damping)
    for before, after in zip(values, values[1:], strict=False):
        assert (after <= before + 1e-12).all()
    assert (values[-1] < values[0]).all()
    assert any(not torch.equal(a, b) for a, b in zip(dampings, dampings[1:], strict=False))


@torch.no_grad()
def test_a_step_that_raises_the_objective_is_refused_and_counted():
    layer = make_layer(optimizer="damped", cg_iterations=8, damping=1e-4)
    layer.ttt_norm_weight.fill_(8.0)  # the curvature is that of f, before the norm: it underestimates this one
    rows = project(layer)
    state = layer.init_state()
    weights = state.weights.merged()
    step = layer.update(rows, weights, state.damping.flatten())
    assert step.rejected is not None
    assert step.rejected.any()
    for old, new in zip(weights, step.weights, strict=True):
        assert torch.equal(old[step.rejected], new[step.rejected])
    assert (step.damping[step.rejected] > 1e-4).all()


@torch.no_grad()
def test_hessian_free_reduces_the_objective_more_than_sgd():
    left = {}
    for optimizer in ("sgd", "hf"):
        layer = make_layer(optimizer=optimizer, cg_iterations=2, base_lr=36.0 if optimizer == "hf" else 0.5)
        rows, norm = project(layer), layer._norm(1)
        goal = rows.goal(layer.config.lag_weight)._replace(rate=torch.ones_like(rows.rate))
        state = layer.init_state()
        step = layer.update(rows, state.weights.merged(), state.damping.flatten())
        x_hat = inner_model.normalised_output(rows.key, step.weights)
        left[optimizer] = float(inner_model.objective_value(x_hat, goal, norm).sum())
    assert left["hf"] < left["sgd"]


@pytest.mark.parametrize(("optimizer", "iterations"), [("static", 1), ("sgd", 1), ("hf", 1), ("hf", 3), ("damped", 3)])
def test_training_gradients_match_finite_differences(optimizer, iterations):
    layer = make_layer(optimizer=optimizer, cg_iterations=iterations, decay=0.1)
    torch.manual_seed(2)
    tokens = torch.randn(2, 3 * M + 2, HIDDEN, dtype=torch.float64)
    queries = torch.randn(2, 3, HIDDEN, dtype=torch.float64)
    positions = torch.zeros(3 * M + 2, 3, dtype=torch.int64)

    def loss() -> torch.Tensor:
        state = layer.init_state(batch=2, differentiable=True)
        out = layer.observe(tokens, positions, state)
        return out.square().mean() + layer.pending(state).square().mean() + layer.recall(queries, state).sin().mean()

    loss().backward()
    gradients = {name: p.grad if p.grad is not None else torch.zeros_like(p) for name, p in layer.named_parameters()}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    step = 1e-6
    for name in ("wk.weight", "wq.weight", "wv.bias", "lag_linear_key.weight", "W1", "b2", "learnable_ttt_lr_bias",
                 "ttt_norm_weight", "gating_alpha"):  # fmt: skip
        parameter = layer.get_parameter(name)
        direction = torch.randn_like(parameter)
        values = []
        with torch.no_grad():
            for sign in (1, -2):
                parameter += sign * step * direction
                values.append(float(loss()))
            parameter += step * direction
        slope = (values[0] - values[1]) / (2 * step)
        assert slope == pytest.approx(float((gradients[name] * direction).sum()), rel=2e-4, abs=1e-7), name


def test_gradients_flow_only_when_the_state_says_so():
    layer = make_layer()
    tokens, positions = torch.randn(M, HIDDEN, dtype=torch.float64), torch.zeros(M, 3, dtype=torch.int64)
    state = layer.init_state()
    assert not layer.observe(tokens, positions, state).requires_grad
    assert not state.W1.requires_grad
    state = layer.init_state(differentiable=True)
    assert layer.observe(tokens, positions, state).requires_grad
    assert state.W1.requires_grad
    carried = state.detach()
    assert not carried.W1.requires_grad
    assert layer.observe(tokens, positions, carried).requires_grad
