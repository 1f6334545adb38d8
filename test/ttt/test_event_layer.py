"""The fast weights over events: the closed form, the exactness of one iteration, cuts, restore, bad input."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

from salmonn_node.ttt.event_layer import EventLayer, EventLayerConfig, product_address, sparse_part

SLOTS, VALUES = 12, 5


def events(count: int, seed: int = 0, top: int = 3) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    addresses = sparse_part(torch.randn(count, SLOTS, generator=generator), top, 0.5)
    return list(zip(addresses, torch.randn(count, VALUES, generator=generator), strict=True))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), top=st.integers(1, 6), damping=st.sampled_from([1e-3, 0.05, 0.3]))
def test_one_iteration_is_the_closed_form(seed: int, top: int, damping: float) -> None:
    layer = EventLayer(EventLayerConfig(SLOTS, VALUES, damping=damping))
    W = torch.zeros(SLOTS, VALUES, dtype=torch.float64)
    for address, value in events(8, seed, top):
        layer.write(address, value)
        a, v = address.double(), value.double()
        W += torch.outer(a, v - a @ W) / (a @ a + damping)

    torch.testing.assert_close(layer.weights.double(), W, rtol=1e-4, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), damping=st.sampled_from([1e-2, 0.1, 1.0]))
def test_more_iterations_change_nothing_when_the_curvature_has_rank_one(seed: int, damping: float) -> None:
    one, eight = (EventLayer(EventLayerConfig(SLOTS, VALUES, damping=damping, cg_iterations=k)) for k in (1, 8))
    for address, value in events(10, seed):
        one.write(address, value)
        eight.write(address, value)

    torch.testing.assert_close(one.weights, eight.weights, rtol=1e-4, atol=1e-5)


def test_a_step_solves_the_damped_system_of_a_larger_mini_batch() -> None:
    layer = EventLayer(EventLayerConfig(SLOTS, VALUES, mini_batch=6, cg_iterations=SLOTS, damping=0.05))
    rows = events(6)
    for address, value in rows:
        layer.write(address, value)
    A, V = (torch.stack(part).double() for part in zip(*rows, strict=True))
    wanted = torch.linalg.solve(A.T @ A + 0.05 * torch.eye(SLOTS, dtype=torch.float64), A.T @ V)

    torch.testing.assert_close(layer.weights.double(), wanted, rtol=1e-3, atol=1e-4)


def test_the_last_value_of_a_slot_is_read_and_the_mean_is_kept_beside_it() -> None:
    layer = EventLayer(EventLayerConfig(SLOTS, VALUES, damping=1e-4))
    address = torch.nn.functional.one_hot(torch.tensor(3), SLOTS).float()
    values = torch.randn(20, VALUES)
    for value in values:
        layer.write(address, value)

    torch.testing.assert_close(layer.read(address), values[-1], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(layer.mean(address), values.sum(0) / 20.05, rtol=1e-4, atol=1e-5)
    assert float(layer.count(address)) == 20.0
    assert float(layer.read(1 - address).abs().max()) == 0.0


def test_decay_leads_back_to_the_initial_value() -> None:
    initial = torch.arange(VALUES).float()
    layer = EventLayer(EventLayerConfig(SLOTS, VALUES, decay=0.1), initial)
    first, second = torch.eye(SLOTS)[0], torch.eye(SLOTS)[1]
    layer.write(first, torch.full((VALUES,), 100.0))
    for _ in range(100):
        layer.write(second, initial)

    torch.testing.assert_close(layer.read(first), initial, rtol=0.0, atol=0.01)


@settings(max_examples=20, deadline=None)
@given(mini_batch=st.integers(1, 5), at=st.integers(0, 17))
def test_a_saved_state_continues_bit_for_bit(mini_batch: int, at: int) -> None:
    config = EventLayerConfig(SLOTS, VALUES, mini_batch=mini_batch, cg_iterations=3)
    whole, cut = EventLayer(config, torch.ones(VALUES)), EventLayer(config, torch.ones(VALUES))
    for number, (address, value) in enumerate(events(17)):
        if number == at:
            tensors, meta = cut.to_tensors()
            cut = EventLayer.from_tensors(load(save(tensors)), meta, config)
        whole.write(address, value)
        cut.write(address, value)
    ours, theirs = whole.to_tensors(), cut.to_tensors()

    assert ours[1] == theirs[1]
    assert all(torch.equal(tensor, theirs[0][name]) for name, tensor in ours[0].items())


def test_parts_of_an_address_can_be_asked_alone() -> None:
    colour, shape = sparse_part(torch.randn(4), 2, 1.0), sparse_part(torch.randn(3), 1, 1.0)
    address = product_address(colour, shape)

    torch.testing.assert_close(address.unflatten(0, (4, 3)).sum(1), colour)
    torch.testing.assert_close(address.unflatten(0, (4, 3)).sum(0), shape)
    assert int((address > 0).sum()) == 2


@pytest.mark.parametrize("bad", [torch.zeros(SLOTS + 1), torch.full((SLOTS,), float("nan"))])
def test_a_bad_address_is_named_and_changes_nothing(bad: Tensor) -> None:
    layer = EventLayer(EventLayerConfig(SLOTS, VALUES))

    with pytest.raises(ValueError, match="address"):
        layer.write(bad, torch.zeros(VALUES))
    assert layer.events == 0


@pytest.mark.parametrize("change", [{"slots": 0}, {"optimizer": "newton"}, {"damping": 0.0}, {"decay": 2.0}])
def test_a_bad_setting_is_named(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        EventLayerConfig(**{"slots": 2, "values": 2, **change})  # type: ignore[arg-type]
