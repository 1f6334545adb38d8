"""4-bit weights on a CPU: what torch's operator returns is what the expanded weight returns, within half a step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from salmonn_node.model import int4_on_cpu
from salmonn_node.model.int4_on_cpu import BLOCK, FEW, CpuInt4Linear, usable
from salmonn_node.model.quantised_linear import GROUP, PREFIX, Int4Linear, replace

WEIGHT = torch.randn(2 * BLOCK, 3 * GROUP, generator=torch.Generator().manual_seed(1)).bfloat16()
# torch packs weights in another way on CPUs without AVX-512. There this layer is not used.
HERE = usable(WEIGHT)


def test_no_weight_is_off_by_more_than_half_a_step_and_the_rounding_of_two_numbers() -> None:
    if not HERE:
        return
    weight = WEIGHT.clone()
    weight[0] = 0.25
    layer = CpuInt4Linear(weight)
    parts = weight.float().unflatten(1, (-1, GROUP))
    span = parts.amax(-1, keepdim=True) - parts.amin(-1, keepdim=True)
    # bf16 has 8 bits: scale, zero and the product are rounded.
    rounding = (parts.abs().amax(-1, keepdim=True) + span) * 2**-6
    off = (layer.full().float() - weight.float()).abs().unflatten(1, (-1, GROUP))
    assert bool((off <= span / 30 + rounding).all())
    assert sum(b.nbytes for b in layer.buffers()) == Int4Linear.nbytes(*weight.shape)


@pytest.mark.parametrize("rows", [1, 3, FEW, FEW + 1])
def test_few_and_many_rows_give_the_product_of_the_expanded_weight(rows: int) -> None:
    if not HERE:
        return
    layer = CpuInt4Linear(WEIGHT, nn.Parameter(torch.ones(len(WEIGHT), dtype=torch.bfloat16)))
    x = torch.randn(1, rows, WEIGHT.shape[1], generator=torch.Generator().manual_seed(2)).bfloat16()
    got = layer(x).detach()
    want = x.float() @ layer.full().float().T + 1
    assert (got.shape, got.dtype) == ((1, rows, len(WEIGHT)), torch.bfloat16)
    assert float((got.float() - want).norm() / want.norm()) < 0.01
    exact = x.float() @ WEIGHT.float().T + 1
    assert float((got.float() - exact).norm() / exact.norm()) < 0.1


def replaced(weight: torch.Tensor) -> nn.Module:
    network = nn.Module()
    name = f"{PREFIX}0.up"
    at = network
    *parts, leaf = name.split(".")
    for part in parts:
        at.add_module(part, nn.Module())
        at = at.get_submodule(part)
    at.add_module(leaf, nn.Linear(weight.shape[1], weight.shape[0], bias=False))
    replace(network, name, weight, "int4")
    return network.get_submodule(name)


def test_other_types_shapes_and_layouts_take_the_layer_that_runs_everywhere(monkeypatch) -> None:
    assert isinstance(replaced(WEIGHT), CpuInt4Linear) == HERE
    assert isinstance(replaced(WEIGHT.float()), Int4Linear)
    assert isinstance(replaced(WEIGHT[: BLOCK + 2]), Int4Linear)
    monkeypatch.setattr(int4_on_cpu, "_layout_is_ours", lambda: False)
    assert isinstance(replaced(WEIGHT), Int4Linear)
