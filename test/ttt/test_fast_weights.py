"""The layer's stream: cutting makes no difference, bad input changes nothing, questions leave no trace."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from salmonn_node.ttt.layer import TTTConfig, TTTLayer
from salmonn_node.ttt.state import TTTState

HIDDEN = 32


def make_layer(seed: int = 0, **changes) -> TTTLayer:
    torch.manual_seed(seed)
    settings_ = {"hidden_size": HIDDEN, "num_heads": 2, "mini_batch": 8, "base_lr": 40.0, "lag_distance": 11} | changes
    layer = TTTLayer(TTTConfig(**settings_))
    with torch.no_grad():
        layer.W1.normal_(std=0.3)
        layer.W2.normal_(std=0.3)
    return layer


def make_stream(length: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    n = torch.arange(length)
    return torch.randn(length, HIDDEN), torch.stack([n // 6, n % 6 // 3, n % 3], dim=-1)


def run(layer: TTTLayer, cuts: list[int], tokens, positions) -> tuple[torch.Tensor, TTTState]:
    state = layer.init_state()
    edges = [0, *sorted(cuts), len(tokens)]
    spans = [(a, b) for a, b in zip(edges, edges[1:], strict=False) if b > a]
    out = [layer.observe(tokens[a:b], positions[a:b], state) for a, b in spans]
    return torch.cat(out), state


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1, 70),
    optimizer=st.sampled_from(["sgd", "hf", "damped", "static"]),
    lag=st.sampled_from([0, 3, 8, 19]),
    decay=st.sampled_from([0.0, 0.05]),
    data=st.data(),
)
def test_cutting_the_stream_makes_no_difference(length, optimizer, lag, decay, data):
    layer = make_layer(optimizer=optimizer, lag_distance=lag, decay=decay)
    tokens, positions = make_stream(length)
    cuts = data.draw(st.lists(st.integers(0, length), min_size=6, max_size=6))
    once, once_state = run(layer, [], tokens, positions)
    for other in (cuts, list(range(length))):
        out, state = run(layer, other, tokens, positions)
        assert torch.equal(out, once)
        assert state == once_state
        assert torch.equal(layer.pending(state), layer.pending(once_state))
    assert once.shape == (length // 8 * 8, HIDDEN)
    assert once_state.updates == length // 8
    assert once_state.pending_rows == length % 8


def test_state_survives_saving_and_copies_are_independent():
    layer = make_layer(optimizer="damped")
    tokens, positions = make_stream(45)
    state = layer.init_state()
    layer.observe(tokens[:30], positions[:30], state)
    copy, loaded = state.clone(), TTTState.from_tensors(state.to_tensors())
    assert copy == state
    assert loaded == state
    rest = [layer.observe(tokens[30:], positions[30:], s) for s in (state, loaded)]
    assert torch.equal(*rest)
    assert loaded == state
    assert copy != state
    assert copy.rows == 24


def test_state_bytes_are_bounded():
    layer = make_layer()
    tokens, positions = make_stream(400)
    state = layer.init_state()
    sizes = set()
    for start in range(0, 400, 40):
        layer.observe(tokens[start : start + 40], positions[start : start + 40], state)
        sizes.add(state.nbytes)
    assert len(sizes) == 1


def test_questions_leave_no_trace():
    layer = make_layer()
    tokens, positions = make_stream(29)
    state = layer.init_state()
    layer.observe(tokens, positions, state)
    before = state.clone()
    assert layer.pending(state).shape == (5, HIDDEN)
    assert layer.recall(tokens[:3], state).shape == (3, HIDDEN)
    asked_there = layer.recall(tokens[:3], state, positions[:3] + 5)
    assert not torch.equal(asked_there, layer.recall(tokens[:3], state))
    assert state == before
    assert not layer.pending(state).requires_grad


def test_empty_pending():
    layer = make_layer()
    assert layer.pending(layer.init_state()).shape == (0, HIDDEN)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda t, p: (t.index_fill(0, torch.tensor([3]), float("nan")), p), "tokens"),
        (lambda t, p: (t.index_fill(0, torch.tensor([3]), float("inf")), p), "tokens"),
        (lambda t, p: (t[:, :-1], p), "tokens"),
        (lambda t, p: (t[0], p), "tokens"),
        (lambda t, p: (t[:0], p[:0]), "tokens"),
        (lambda t, p: (t.long(), p), "tokens"),
        (lambda t, p: (t.expand(2, -1, -1), p), "tokens"),
        (lambda t, p: (t, p[:-1]), "positions"),
        (lambda t, p: (t, p[:, :2]), "positions"),
        (lambda t, p: (t, p.float()), "positions"),
        (lambda t, p: (t, p - 1), "positions"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(change, name):
    layer = make_layer()
    tokens, positions = make_stream(29)
    state = layer.init_state()
    layer.observe(tokens, positions, state)
    before = state.clone()
    with pytest.raises(ValueError, match=f"^{name}:"):
        layer.observe(*change(tokens, positions), state)
    assert state == before


@pytest.mark.parametrize("bad", [torch.full((2, HIDDEN), float("nan")), torch.zeros(0, HIDDEN), torch.zeros(2, 3)])
def test_bad_queries_are_named(bad):
    layer = make_layer()
    with pytest.raises(ValueError, match="^queries:"):
        layer.recall(bad, layer.init_state())


def test_wrong_mode_is_named():
    tokens, positions = make_stream(9)
    streaming, released = make_layer(), make_layer(mode="released")
    with pytest.raises(ValueError, match="observe_slice"):
        released.observe(tokens, positions, released.init_state())
    with pytest.raises(ValueError, match="streaming"):
        streaming.observe_slice(tokens, (2, 3), streaming.init_state())
    with pytest.raises(ValueError, match="tokens"):
        released.observe_slice(tokens[:0], (2, 3), released.init_state())


def test_released_mode_equals_streaming_when_nothing_is_padded():
    tokens, positions = make_stream(40)
    streaming, released = make_layer(), make_layer(mode="released")
    ours, theirs = streaming.init_state(), released.init_state()
    want = torch.cat([released.observe_slice(tokens[a:b], (2, 3), theirs) for a, b in ((0, 16), (16, 40))])
    assert torch.allclose(streaming.observe(tokens, positions, ours), want, atol=1e-6)
    assert torch.allclose(ours.W1, theirs.W1, atol=1e-6)


def test_weights_stay_float32_whatever_the_compute_dtype():
    tokens, positions = make_stream(32)
    layer = make_layer().bfloat16()
    state = layer.init_state()
    out = layer.observe(tokens, positions, state)
    assert out.dtype == torch.bfloat16
    assert state.W1.dtype == torch.float32
    assert make_layer(state_dtype=torch.bfloat16).init_state().W1.dtype == torch.bfloat16
    released = make_layer(mode="released").bfloat16()
    assert released.observe_slice(tokens, (2, 3), released.init_state()).dtype == torch.bfloat16


def test_streams_of_a_batch_do_not_touch_each_other():
    layer = make_layer(optimizer="hf", decay=0.01)
    first, positions = make_stream(24)
    second, _ = make_stream(24, seed=2)
    together = layer.init_state(batch=2)
    out = layer.observe(torch.stack([first, second]), positions, together)
    for i, tokens in enumerate((first, second)):
        alone = layer.init_state()
        assert torch.allclose(out[i], layer.observe(tokens, positions, alone), atol=1e-5)


def test_static_weights_do_not_move_and_decay_returns():
    tokens, positions = make_stream(80)
    static = make_layer(optimizer="static")
    state = static.init_state()
    static.observe(tokens, positions, state)
    assert torch.equal(state.W1, static.init_state().W1)
    drift = []
    for decay in (0.0, 0.5):
        layer = make_layer(decay=decay)
        state = layer.init_state()
        layer.observe(tokens, positions, state)
        drift.append(float((state.W1 - layer.W1).detach().norm()))
    assert drift[1] < 0.6 * drift[0]


def test_an_update_that_is_not_finite_is_skipped_and_counted():
    layer = make_layer(base_lr=1e38)
    tokens, positions = make_stream(16)
    state = layer.init_state()
    layer.observe(tokens * 1e4, positions, state)
    assert state.skipped > 0
    assert state.W1.isfinite().all()


@pytest.mark.parametrize(
    "bad", [{"num_heads": 3}, {"lag_distance": -1}, {"decay": 2.0}, {"optimizer": "adam"}, {"num_heads": 8}]
)
def test_bad_configuration_is_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad)) if "num_heads" not in bad else "hidden_size"):
        TTTConfig(**({"hidden_size": HIDDEN, "num_heads": 2} | bad))
