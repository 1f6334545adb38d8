"""8-bit and 4-bit weights: how far a layer and the whole network move, what memory they take, who may have them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from salmonn_node.model.checkpoint import load, save
from salmonn_node.model.checkpoint_names import released_name
from salmonn_node.model.plan import plan
from salmonn_node.model.profiles import profile
from salmonn_node.model.quantised_linear import GROUP, LAYERS, PREFIX, Int4Linear, Int8Linear
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.stream.observations import SECOND_NS, Frame


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(1e-4, 1e4), st.integers(0, 2**31))
def test_no_weight_is_off_by_more_than_half_a_step(out, width, size, seed):
    weight = torch.randn(out, width, generator=torch.Generator().manual_seed(seed)) * size
    weight[0] = 0
    layer = Int8Linear(weight)
    back = layer(torch.eye(width)).T
    half = weight.abs().amax(1, keepdim=True) / 254
    assert bool(((back - weight).abs() <= half * 1.001 + 1e-30).all())


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 3), st.floats(1e-2, 1e3), st.integers(0, 2**31))
def test_no_4_bit_weight_is_off_by_more_than_half_a_step_and_the_rounding_of_two_numbers(out, groups, size, seed):
    weight = torch.randn(out, groups * GROUP, generator=torch.Generator().manual_seed(seed)) * size
    weight[0] = 0
    back = Int4Linear(weight)(torch.eye(groups * GROUP)).T
    parts = weight.unflatten(1, (-1, GROUP))
    span = parts.amax(-1, keepdim=True) - parts.amin(-1, keepdim=True)
    # fp16 has 11 bits: the lowest weight and fifteen steps are off by so much at most.
    rounding = (parts.abs().amax(-1, keepdim=True) + span) * 2**-10
    assert bool(((back - weight).abs().unflatten(1, (-1, GROUP)) <= span / 30 + rounding + 1e-6).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("weights", "close"), [("int8", 0.02), ("int4", 0.1)])
def test_a_layer_with_bias_stays_close_in_both_types(dtype, weights, close):
    torch.manual_seed(0)
    layer = nn.Linear(256, 64).to(dtype)
    x = torch.randn(10, 256, dtype=dtype)
    small = LAYERS[weights](layer.weight, layer.bias)
    want, got = layer(x).detach().float(), small(x).detach()
    assert got.dtype == dtype
    assert float((got.float() - want).norm() / want.norm()) < close
    assert sum(b.nbytes for b in small.buffers()) == small.nbytes(64, 256)


def test_bad_weights_are_refused():
    with pytest.raises(ValueError, match="weight: shape"):
        Int8Linear(torch.zeros(3))
    with pytest.raises(ValueError, match="weight: NaN"):
        Int8Linear(torch.full((2, 2), torch.nan))
    with pytest.raises(ValueError, match="multiple of 32"):
        Int4Linear(torch.zeros(2, 40))


def first_logits(model: VideoSalmonnS) -> torch.Tensor:
    rng = np.random.default_rng(0)
    memory = model.new_memory()
    for t in range(6):
        image = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        model.observe_frame(memory, Frame((t + 1) * SECOND_NS, "front", image))
    logits: list[torch.Tensor] = []
    model.network.language.lm_head.register_forward_hook(lambda _m, _i, out: logits.append(out[-1].float()))
    model.answer("where is the cup?", model.view(memory), max_new_tokens=1)
    return logits[0]


def write_stock(folder) -> None:
    """A stock Qwen3-VL folder of a tiny random network, in bf16."""
    model = VideoSalmonnS.tiny(seed=5, ttt=None, audio=None, evidence_head=False, recall=False, dtype="bfloat16")
    state = model.network.state_dict()
    state.pop("language.lm_head.weight")
    save_file({released_name(n): t.contiguous() for n, t in state.items()}, folder / "model.safetensors")
    values = {"text_config": dict(model.config.text), "vision_config": dict(model.config.vision)}
    values |= {"tie_word_embeddings": True, "model_type": "qwen3_vl", "dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(values))
    model.tokenizer.save(folder)


@pytest.mark.parametrize(("weights", "close", "share"), [("int8", 0.05, 0.55), ("int4", 0.5, 0.36)])
def test_a_stock_folder_answers_nearly_the_same_from_fewer_bytes(tmp_path, weights, close, share):
    write_stock(tmp_path)
    full, small = load(str(tmp_path), dtype="float32"), load(str(tmp_path), dtype="float32", weights=weights)
    want, got = first_logits(full), first_logits(small)
    assert float((got - want).norm() / want.norm()) < close
    assert small.checkpoint.id == f"{full.checkpoint.id}-{weights}"
    decoder = small.network.language.decoder
    assert sum(isinstance(m, LAYERS[weights]) for m in decoder.modules()) == 7 * len(decoder.layers)
    full, small = load(str(tmp_path)), load(str(tmp_path), weights=weights)

    def held(model):
        state = model.network.state_dict()
        return sum(t.nbytes for n, t in state.items() if n.startswith(PREFIX))

    assert held(small) < share * held(full)
    difference = held(full) - held(small)
    assert plan(full.config).items["weights"] - plan(small.config).items["weights"] == difference
    with pytest.raises(ValueError, match=weights):
        save(small, tmp_path / "again")


def test_the_plan_counts_quantised_weights():
    config = profile("video_salmonn_s_8b")
    full, small, smallest = plan(config), plan(config.replace(weights="int8")), plan(config.replace(weights="int4"))
    assert 0.5 < small.items["weights"] / full.items["weights"] < 0.65
    assert smallest.total < small.total < full.total - (5 << 30)
    with pytest.raises(ValueError, match="weights"):
        config.replace(weights="int3")


def test_quantised_weights_run_without_the_calibration_of_the_full_ones(caplog):
    assert load("tiny").checkpoint.calibration is not None
    model = load("tiny", weights="int8")
    assert model.checkpoint.calibration is None
    assert "calibration.json is for the weights in full" in caplog.text
    assert "salmonn calibrate --weights int8" in caplog.text
