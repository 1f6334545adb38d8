"""On a real GPU: the demo, the fast weights, CUDA graphs, quantised weights, and states that go to disk and come back.

`make test-gpu` runs them. What can be seen without a GPU is in `test/model/test_another_device.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from demo_answers import demo_answers, rounded

from salmonn_node.answering.grounding import Grounding
from salmonn_node.engines import networks
from salmonn_node.engines.runtime import EngineSettings, load
from salmonn_node.engines.wrappers import StaticAudio, StaticVision, spec_of
from salmonn_node.ingest.observer import Observer
from salmonn_node.live.demo_setup import NODE_PARAMETERS, DemoOptions, prepare
from salmonn_node.model.checkpoint import load as load_checkpoint
from salmonn_node.model.profiles import profile
from salmonn_node.replay.job import JobSettings, open_recording
from salmonn_node.stream.observations import Pose
from salmonn_node.ttt.layer import TTTConfig, TTTLayer

pytestmark = [pytest.mark.gpu, pytest.mark.full]


@pytest.mark.parametrize("read_events", ["auto", "never"])
def test_the_demo_answers_as_on_a_cpu(tmp_path, read_events):
    here = demo_answers(tmp_path / "here", read_events, "cpu")
    there = demo_answers(tmp_path / "there", read_events, "cuda")
    assert rounded(there) == rounded(here)


def test_the_same_stream_gives_the_same_answers_to_the_last_digit(tmp_path):
    assert demo_answers(tmp_path / "one", device="cuda") == demo_answers(tmp_path / "two", device="cuda")


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_quantised_weights_answer_as_on_a_cpu(tmp_path, weights):
    asked = {}
    for device in ("cpu", "cuda"):
        given = demo_answers(tmp_path / device, "never", device, weights)
        asked[device] = [answered["answer"]["outcome"] for answered in given]
        assert not [answered for answered in given if answered["answer"]["error"] != "NONE"]
    agree = sum(a == b for a, b in zip(asked["cpu"], asked["cuda"], strict=True))
    assert agree >= len(asked["cpu"]) - 1, asked


@pytest.mark.parametrize("optimizer", ["static", "sgd", "hf", "damped"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 1e-3), (torch.bfloat16, 0.03)])
@torch.no_grad()
def test_the_fast_weights_are_as_near_the_exact_ones_as_on_a_cpu(optimizer, dtype, tolerance):
    torch.manual_seed(0)
    layer = fast_weights(optimizer, torch.float32).to(dtype)
    tokens = torch.randn(256, 256, dtype=dtype)
    exact_layer = fast_weights(optimizer, torch.float64).double()
    exact_layer.load_state_dict({name: tensor.double() for name, tensor in layer.state_dict().items()})
    exact = observed(exact_layer, tokens.double())
    here, there = observed(layer, tokens), observed(layer.cuda(), tokens.cuda())
    for name, wanted, cpu, gpu in zip(("out", "W1", "b1", "W2", "b2"), exact, here, there, strict=True):
        error, known = (float((found - wanted).norm()) for found in (gpu, cpu))
        assert error <= max(2 * known, tolerance * float(wanted.norm())), (name, error, known)


def fast_weights(optimizer: str, state_dtype: torch.dtype) -> TTTLayer:
    return TTTLayer(
        TTTConfig(
            hidden_size=256, num_heads=4, mini_batch=64, lag_distance=32, optimizer=optimizer, state_dtype=state_dtype
        )
    )


def observed(layer: TTTLayer, tokens: torch.Tensor) -> list[torch.Tensor]:
    """What four mini-batches give, and the fast weights after them."""
    state = layer.init_state()
    out = layer.observe(tokens, torch.arange(256, device=tokens.device)[:, None].repeat(1, 3), state)
    return [out.double().cpu(), *(part.double().cpu() for part in state.weights)]


@pytest.mark.parametrize("compiled", [False, True])
@torch.no_grad()
def test_an_encoder_as_a_cuda_graph_equals_the_encoder(compiled):
    config = profile("tiny")
    towers = networks.random_towers(config)
    grid = networks.camera_grid(config, 160, 96)
    for static in (StaticVision(towers.vision.cuda(), grid), StaticAudio(towers.audio.cuda())):
        spec = spec_of(static, config.name)
        encoder = load(spec, static, lambda: "0" * 64, EngineSettings("torch_graph", compiled=compiled))
        assert encoder.backend == "torch_graph", encoder.reason
        for seed in range(3):
            given = torch.rand(spec.inputs[0].shape, generator=torch.Generator().manual_seed(seed)).cuda()
            for found, wanted in zip(encoder(given), static(given), strict=True):
                torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
        encoder.close()


def observations(folder: Path) -> Iterator:
    recording = prepare(DemoOptions("world", 1.0, "tiny", folder))
    stream, _ = open_recording(recording.bag, JobSettings(map_id=NODE_PARAMETERS["map_id"]), Grounding())
    # Without poses: their ids are those of the evidence index, which a store restores.
    return (observation for _, observation in stream if not isinstance(observation, Pose))


def test_a_state_on_a_gpu_comes_back_and_goes_on_bit_for_bit(tmp_path):
    model = load_checkpoint("tiny", "cuda")
    seen = list(observations(tmp_path / "bag"))
    whole = Observer(model, inline=True)
    for item in seen:
        whole.submit(item)
    half = Observer(model, inline=True)
    for item in seen[: len(seen) // 2]:
        half.submit(item)
    tensors, values = half.intake.to_state()
    again = Observer(model, inline=True)
    again.intake.restore({name: tensor.cpu().clone() for name, tensor in tensors.items()}, values)
    for item in seen[len(seen) // 2 :]:
        again.submit(item)
    one, two = (observer.memory.to_tensors()[0] for observer in (whole, again))
    assert one.keys() == two.keys()
    assert {tensor.device.type for tensor in one.values()} >= {"cuda"}
    assert not [name for name in one if not torch.equal(one[name], two[name])]


def test_a_state_of_a_gpu_is_refused_on_a_cpu_by_name(tmp_path):
    observer = Observer(load_checkpoint("tiny", "cuda"), inline=True)
    for item in observations(tmp_path / "bag"):
        observer.submit(item)
    tensors, values = observer.intake.to_state()
    with pytest.raises(ValueError, match="the state was made on a GPU, but the network is on cpu"):
        Observer(load_checkpoint("tiny", "cpu"), inline=True).intake.restore(
            {name: tensor.cpu() for name, tensor in tensors.items()}, values
        )
