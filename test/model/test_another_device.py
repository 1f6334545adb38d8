"""What must hold on a GPU and can be seen without one: tensors that meet lie on one device, and types fit.

`another_device` stands in for the GPU. `test/gpu/` has the tests for a real one.
"""

from __future__ import annotations

import copy
from unittest import mock

import pytest
import torch
from another_device import Elsewhere, another_device
from demo_answers import demo_answers, rounded
from torch import nn

from salmonn_node.model.towers import PatchEmbed
from salmonn_node.ttt.layer import TTTConfig, TTTLayer

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="not shown here: there is a GPU; see test/gpu/")


def test_the_stand_in_refuses_what_a_gpu_refuses():
    with another_device():
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        assert isinstance(there, Elsewhere)
        assert (there.to("cpu") + here).tolist() == (there + here.to("cuda")).tolist() == [2, 2, 2]
        with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
            there + here
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        assert there[torch.tensor([0, 2])].tolist() == [1, 1]


@pytest.mark.parametrize("read_events", ["auto", "never"])
def test_the_demo_answers_the_same_on_another_device(tmp_path, read_events):
    here = demo_answers(tmp_path / "here", read_events)
    with another_device():
        there = demo_answers(tmp_path / "there", read_events)
    assert rounded(there) == rounded(here)


@pytest.mark.parametrize("optimizer", ["sgd", "hf", "damped"])
@torch.no_grad()
def test_the_fast_weights_keep_their_types_on_another_device(optimizer):
    torch.manual_seed(0)
    layer = TTTLayer(TTTConfig(hidden_size=64, num_heads=2, mini_batch=8, lag_distance=4, optimizer=optimizer))
    layer = layer.bfloat16()
    tokens = torch.randn(32, 64).bfloat16()
    places = torch.zeros(32, 3, dtype=torch.int64)
    here = layer.observe(tokens, places, layer.init_state())
    with another_device():
        moved = copy.deepcopy(layer).to("cuda")
        there = moved.observe(tokens.to("cuda"), places.to("cuda"), moved.init_state())
        assert there.dtype == torch.bfloat16
        torch.testing.assert_close(there.cpu(), here, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_patches_are_embedded_by_a_product_that_equals_the_convolution(dtype):
    torch.manual_seed(0)
    embed = PatchEmbed(nn.Conv3d(3, 32, (2, 16, 16), stride=(2, 16, 16))).to(dtype)
    pixels = torch.rand(24, 3 * 2 * 16 * 16)
    here = embed(pixels)
    with another_device(), mock.patch.object(nn.Conv3d, "forward", side_effect=AssertionError("a convolution ran")):
        there = copy.deepcopy(embed).to("cuda")(pixels.to("cuda")).cpu()
    assert here.dtype == there.dtype == dtype
    torch.testing.assert_close(there, here, rtol=0.02, atol=1e-5 if dtype == torch.float32 else 0.02)
