"""The static wrappers compute what the towers compute, to the bit."""

from __future__ import annotations

import pytest
import torch

from salmonn_node.engines.wrappers import StaticAudio, StaticVision, cast_copy, spec_of, weights_sha256

DTYPES = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("grid", [(4, 6), (2, 2), (10, 4)])
@pytest.mark.parametrize("batch", [1, 2])
@torch.no_grad()
def test_static_vision_equals_the_tower(towers, dtype, grid, batch):
    tower = cast_copy(towers.vision, dtype)
    static = StaticVision(tower, grid, batch)
    spec = spec_of(static, "small")
    pixels = torch.randn(spec.inputs[0].shape, generator=torch.Generator().manual_seed(0))
    tokens, deepstack = tower(pixels, grid)
    found = static(pixels)
    assert torch.equal(found[0], tokens)
    assert torch.equal(found[1], deepstack)
    assert [(t.shape, t.dtype) for t in found] == [(torch.Size(t.shape), dtype) for t in spec.outputs]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 3])
@torch.no_grad()
def test_static_audio_equals_the_tower(towers, dtype, batch):
    tower = cast_copy(towers.audio, dtype)
    static = StaticAudio(tower, batch)
    spec = spec_of(static, "small")
    mel = torch.randn(spec.inputs[0].shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    (found,) = static(mel)
    assert torch.equal(found, tower(mel))
    assert found.shape == torch.Size(spec.outputs[0].shape)


def test_rotary_frequencies_keep_float32(towers):
    """Casting a tower to bf16 must not move its positions."""
    low = cast_copy(towers.vision, torch.bfloat16)
    assert low.visual.rotary_pos_emb.inv_freq.dtype == torch.float32
    assert next(towers.vision.parameters()).dtype == torch.float32


def test_weights_sha256_sees_every_weight_and_rounds_as_the_plan_does(towers):
    whole = weights_sha256(towers.vision, "bf16")
    assert whole == weights_sha256(cast_copy(towers.vision, torch.bfloat16), "bf16")
    assert whole != weights_sha256(towers.vision, "fp32")
    changed = cast_copy(towers.vision, torch.float32)
    changed.visual.merger.linear_fc2.bias.data[-1] += 1
    assert whole != weights_sha256(changed, "bf16")


@pytest.mark.parametrize(("grid", "batch"), [((3, 4), 1), ((0, 4), 1), ((4, 4), 0)])
def test_impossible_shapes_are_refused(towers, grid, batch):
    with pytest.raises(ValueError, match="grid|batch"):
        StaticVision(towers.vision, grid, batch)
