"""What runs an encoder, what it says about itself, and what happens when it fails."""

from __future__ import annotations

import logging
import types

import pytest
import torch

from salmonn_node.engines import machine, reasons
from salmonn_node.engines.backends import EnginePlan, TorchGraph
from salmonn_node.engines.encoders import load_encoders
from salmonn_node.engines.reasons import EngineError
from salmonn_node.engines.runtime import EngineSettings, load
from salmonn_node.engines.wrappers import StaticAudio, StaticVision, spec_of

GRID = (4, 6)
no_gpu = pytest.mark.skipif(machine.gpu() is not None, reason="not shown here: there is a GPU")


def sha256():
    return "0" * 64


@no_gpu
@pytest.mark.parametrize(
    ("backend", "code"),
    [
        ("auto", "NO_TRT"),
        ("tensorrt", "NO_TRT"),
        ("tensorrt_rtx", "NO_TRT"),
        ("torch_graph", "NO_CUDA"),
        ("torch", None),
    ],
)
@torch.no_grad()
def test_without_a_gpu_every_backend_falls_back_to_torch_and_says_why(towers, tmp_path, backend, code):
    static = StaticVision(towers.vision, GRID)
    spec = spec_of(static, "small")
    encoder = load(spec, static, sha256, EngineSettings(backend, root=tmp_path))
    assert encoder.backend == "torch"
    assert (encoder.reason.code if encoder.reason else None) == code
    pixels = torch.randn(spec.inputs[0].shape)
    assert all(torch.equal(a, b) for a, b in zip(encoder(pixels), static(pixels), strict=True))
    assert encoder.calls == 1


@pytest.mark.parametrize("backend", ["auto", "tensorrt", "torch_graph", "torch"])
def test_a_required_engine_is_an_error_when_there_is_none(towers, tmp_path, backend):
    static = StaticAudio(towers.audio)
    with pytest.raises(EngineError) as caught:
        load(spec_of(static, "small"), static, sha256, EngineSettings(backend, True, tmp_path))
    assert caught.value.reason.kind in (reasons.NO_TRT, reasons.NO_ENGINE)


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match="backend: 'cuda'"):
        EngineSettings("cuda")


def test_a_wrong_shape_runs_nothing(towers, tmp_path):
    static = StaticAudio(towers.audio)
    encoder = load(spec_of(static, "small"), static, sha256, EngineSettings("torch", root=tmp_path))
    with pytest.raises(ValueError, match="audio100"):
        encoder(torch.zeros(1, 2, 3))
    assert encoder.calls == 0


def test_close_is_final_and_harmless_twice(towers, tmp_path):
    static = StaticAudio(towers.audio)
    encoder = load(spec_of(static, "small"), static, sha256, EngineSettings("torch", root=tmp_path))
    encoder.close()
    encoder.close()
    with pytest.raises(EngineError, match="RUNTIME_FAIL: audio100: called after close"):
        encoder(torch.zeros(encoder.spec.inputs[0].shape))


def test_a_device_error_is_runtime_fail_and_never_a_fallback(towers, tmp_path):
    static = StaticAudio(towers.audio)
    encoder = load(spec_of(static, "small"), static, sha256, EngineSettings("torch", root=tmp_path))

    class Broken:
        name = "tensorrt"

        def __call__(self, tensor):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        def close(self):
            pass

    encoder._run = Broken()
    with pytest.raises(EngineError, match="RUNTIME_FAIL.*illegal memory access"):
        encoder(torch.zeros(encoder.spec.inputs[0].shape))


@no_gpu
def test_a_cuda_graph_without_cuda_is_refused(towers):
    static = StaticAudio(towers.audio)
    with pytest.raises(EngineError, match="NO_CUDA"):
        TorchGraph(static, spec_of(static, "small"), torch.device("cpu"))


class StandIn(types.SimpleNamespace):
    """As much of TensorRT's interface as `EnginePlan` uses, computed by torch on the CPU: it shows the wiring only."""

    def __init__(self, static, spec, fail=False):
        super().__init__()
        addresses, tensors = {}, [*spec.inputs, *spec.outputs]
        kinds = {"bf16": "BF16", "fp16": "HALF", "fp32": "FLOAT"}
        outer = self
        self.executed, self.fail, self.plan = 0, fail, None

        class Context:
            def set_tensor_address(self, name, pointer):
                addresses[name] = pointer

            def execute_async_v3(self, stream):
                outer.executed += 1
                if outer.fail:
                    return False
                found = {
                    plan_tensor.data_ptr(): plan_tensor for plan_tensor in (outer.plan._input, *outer.plan._outputs)
                }
                with torch.no_grad():
                    results = static(found[addresses[spec.inputs[0].name]])
                for t, result in zip(spec.outputs, results, strict=True):
                    found[addresses[t.name]].copy_(result)
                return True

        known = {t.name: t for t in tensors}
        engine = types.SimpleNamespace(
            num_io_tensors=len(tensors),
            get_tensor_name=lambda i: tensors[i].name,
            get_tensor_shape=lambda name: known[name].shape,
            get_tensor_dtype=lambda name: types.SimpleNamespace(
                name=next(kinds[t.dtype] for t in tensors if t.name == name)
            ),
            create_execution_context=Context,
        )
        self.Logger = type("Logger", (), {"ERROR": 0, "__init__": lambda self, level: None})
        self.Runtime = lambda log: types.SimpleNamespace(deserialize_cuda_engine=lambda data: engine)


def make_plan(stand_in, spec, path):
    class Known(EnginePlan):
        def _check_tensors(self):
            stand_in.plan = self
            super()._check_tensors()

    path.write_bytes(b"plan")
    return Known(stand_in, path, spec, torch.device("cpu"))


@torch.no_grad()
def test_the_runtimes_wiring_on_a_stand_in(towers, tmp_path):
    """Names, shapes and addresses reach the context; outputs are copies; poisoned outputs must be written again."""
    static = StaticVision(towers.vision, GRID)
    spec = spec_of(static, "small", "tensorrt_rtx")
    plan = make_plan(StandIn(static, spec), spec, tmp_path / "p")
    first, second = torch.randn(2, *spec.inputs[0].shape)
    one = plan(first)
    plan.poison()
    two = plan(second)
    assert all(torch.equal(a, b) for a, b in zip(one, static(first), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(two, static(second), strict=True))
    plan.close()
    with pytest.raises(EngineError, match="RUNTIME_FAIL"):
        plan(first)


def test_an_execution_that_fails_is_loud(towers, tmp_path):
    static = StaticAudio(towers.audio)
    spec = spec_of(static, "small", "tensorrt")
    stand_in = StandIn(static, spec)
    plan = make_plan(stand_in, spec, tmp_path / "p")
    stand_in.fail = True
    with pytest.raises(EngineError, match="RUNTIME_FAIL: tensorrt: execute_async_v3 failed"):
        plan(torch.zeros(spec.inputs[0].shape))


def test_a_plan_with_other_tensors_is_refused(towers, tmp_path):
    static = StaticAudio(towers.audio)
    spec = spec_of(static, "small", "tensorrt")
    other = spec_of(StaticAudio(towers.audio, batch=2), "small", "tensorrt")
    with pytest.raises(EngineError, match="LOAD_FAIL.* mel is"):
        make_plan(StandIn(static, other), spec, tmp_path / "p")
    vision = spec_of(StaticVision(towers.vision, GRID), "small", "tensorrt")
    with pytest.raises(EngineError, match="LOAD_FAIL.* tensors are"):
        make_plan(StandIn(static, vision), spec, tmp_path / "p")


@no_gpu
@torch.no_grad()
def test_encoders_of_a_network_fall_back_with_a_report(towers, built, caplog):
    caplog.set_level(logging.INFO)
    settings = EngineSettings(root=built[0].root)
    encoders = load_encoders(towers.vision, towers.audio, "small", settings)
    for name in ("vision", "audio"):
        line = encoders.summary(name)
        assert (line.backend, line.reason) == ("torch", "NO_TRT")
        assert line.label.startswith(name)
    assert any("encoder vision4x6: torch (NO_TRT" in m for m in caplog.messages), "a grid with a plan is tried"
    pixels, mel = torch.randn(3, 24, 1536), torch.randn(2, 16, 100)
    for found, right in zip(encoders.vision(pixels, GRID), towers.vision(pixels, GRID), strict=True):
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoders.audio(mel), towers.audio(mel), rtol=1e-4, atol=1e-5)
    other = torch.randn(1, 16, 1536)
    assert torch.equal(encoders.vision(other, (4, 4))[0], towers.vision(other, (4, 4))[0])
    assert encoders.vision.elsewhere[(4, 4)] == 1
    assert any("grid 4x4 has no loaded encoder" in m for m in caplog.messages)
    encoders.close()


def test_encoders_obey_require_engine(towers, tmp_path):
    with pytest.raises(EngineError):
        load_encoders(towers.vision, towers.audio, "small", EngineSettings(require_engine=True, root=tmp_path))


def test_any_name_of_a_network_makes_a_folder(towers, tmp_path):
    settings = EngineSettings(root=tmp_path, grids=(GRID,))
    for name in ("../etc", "tiny (untrained)", "", "x" * 100):
        found = load_encoders(towers.vision, None, name, settings).vision.loaded[GRID].spec.model
        assert "/" not in found
        assert not found.startswith(".")


def test_a_network_that_does_not_hear(towers, tmp_path):
    encoders = load_encoders(towers.vision, None, "small", EngineSettings("torch", root=tmp_path))
    assert encoders.audio is None
    assert encoders.summary("audio").backend == "none"
    assert (encoders.summary("vision").backend, encoders.summary("vision").reason) == ("torch", "")
