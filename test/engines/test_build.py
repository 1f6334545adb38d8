"""Building plans with the real TensorRT-RTX builder, without a GPU: export, graph parity, plan, manifest, command."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from salmonn_node.engines import machine, parity, reasons
from salmonn_node.engines.backends import EnginePlan, OnnxCpu
from salmonn_node.engines.build import build_engine
from salmonn_node.engines.export import OPSET, export_onnx, opset_for
from salmonn_node.engines.reasons import EngineError
from salmonn_node.engines.request import Request
from salmonn_node.engines.wrappers import StaticAudio, StaticVision, spec_of

GRID = (4, 6)


def test_plans_of_both_encoders_are_built_and_recorded(built):
    cache, vision, audio, lines = built
    for found, label in ((vision, "vision4x6"), (audio, "audio100")):
        folder = found.entry.folder
        assert sorted(p.name for p in folder.iterdir()) == ["build.log", "engine.plan", "manifest.json", "parity.json"]
        assert folder.parent == cache.root / "small"
        version = machine.version("tensorrt_rtx")
        key = json.loads((folder / "manifest.json").read_text())["key"]
        assert folder.name == f"{label}-bf16-sm80+-trt_rtx{version}-{key[:12]}"
        assert found.entry.plan.stat().st_size > 100_000
        assert found.seconds["build"] > 0
        assert found.peak_rss_mib["builder"] > 0
        record = parity.read_parity(folder)
        assert parity.worst(record.graph) is None
        assert {m.case for m in record.graph} == {"noise0", "noise1", "noise2", "smooth"}
    assert any("Building engine" in line for line in lines), "the builder's progress is passed on"
    assert not list((cache.root / "small").glob(".building-*"))


def test_a_plan_that_is_there_is_not_built_again(built, towers):
    """The second export gives the same bytes, hence the same key."""
    cache, _, audio, _ = built
    again = build_engine(Request(towers.audio, "small", None, flavour="tensorrt_rtx", seeds=1), cache)
    assert again.reused
    assert again.entry.folder == audio.entry.folder


def test_the_builder_imports_neither_torch_nor_transformers():
    code = "import salmonn_node.engines.builder, sys; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_exported_graphs_equal_torch_on_onnx_runtime(towers, tmp_path):
    """In float32 at the older opset; the plans' own graphs (bf16, newer opset) were checked while they were built."""
    for static in (StaticVision(towers.vision, GRID), StaticAudio(towers.audio)):
        spec = spec_of(static, "small")
        path = export_onnx(static, spec, tmp_path, OPSET)
        assert b"site-packages" not in path.read_bytes(), "no path of this machine, so that the sha256 is the graph's"
        measures = parity.compare(OnnxCpu(path, spec), static, None, spec, parity.cases(spec))
        assert max(m.error for m in measures) < 1e-5
        assert parity.worst(measures) is None


def test_opsets_follow_tensorrt_versions():
    assert opset_for("tensorrt", "10.3.0") == 20
    assert opset_for("tensorrt", "11.0.0.5") == 23
    assert opset_for("tensorrt_rtx", "1.4.0.76") == 20
    assert opset_for("tensorrt_rtx", "1.7.1.116") == 23


def test_a_failing_build_is_loud_and_leaves_nothing(towers, tmp_path, monkeypatch):
    from salmonn_node.engines import build
    from salmonn_node.engines.cache import EngineCache

    def broken(static, spec, folder, opset):
        path = export_onnx(static, spec, folder, opset)
        data = path.with_name(path.name + ".data")
        if data.exists():
            data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
        return path

    monkeypatch.setattr(build, "export_onnx", broken)
    cache = EngineCache(tmp_path)
    with pytest.raises(EngineError, match="tensorrt_rtx gave no plan") as caught:
        build_engine(Request(towers.audio, "small", None, flavour="tensorrt_rtx", seeds=0), cache)
    assert caught.value.reason.kind == reasons.LOAD_FAIL
    assert cache.entries() == []
    assert [p.name for p in (tmp_path / "small").iterdir()] == [".lock"]


def test_a_graph_that_computes_something_else_is_not_built(towers, tmp_path, monkeypatch):
    from salmonn_node.engines import build
    from salmonn_node.engines.cache import EngineCache
    from salmonn_node.engines.wrappers import cast_copy

    def other_weights(static, spec, folder, opset):
        wrong = cast_copy(static, torch.bfloat16)
        wrong.tower.audio_proj.weight.data[0] *= 3
        return export_onnx(wrong, spec, folder, opset)

    monkeypatch.setattr(build, "export_onnx", other_weights)
    with pytest.raises(EngineError, match="the exported graph: tokens on"):
        build_engine(Request(towers.audio, "small", None, flavour="tensorrt_rtx"), EngineCache(tmp_path))


def test_an_absent_flavour_is_named(towers, tmp_path):
    from salmonn_node.engines.cache import EngineCache

    if machine.bindings("tensorrt"):
        pytest.skip("not shown here: TensorRT is installed")
    with pytest.raises(EngineError, match="NO_TRT: tensorrt is not installed"):
        build_engine(Request(towers.audio, "small", None, flavour="tensorrt"), EngineCache(tmp_path))


def test_torch_tensorrt_is_refused_without_a_gpu(towers, tmp_path):
    from salmonn_node.engines import torch_trt

    if machine.gpu():
        pytest.skip("not shown here: there is a GPU")
    static = StaticAudio(towers.audio)
    spec = spec_of(static, "small")
    program, digest, opset = torch_trt.export_program(static, spec)
    assert (digest, opset) == (torch_trt.export_program(static, spec)[1], 0)
    assert torch.equal(
        program.module()(torch.zeros(spec.inputs[0].shape))[0], static(torch.zeros(spec.inputs[0].shape))[0]
    )
    with pytest.raises(EngineError, match="NO_TRT"):
        torch_trt.convert(program, spec)


def test_a_real_plan_cannot_be_loaded_without_a_gpu_and_says_so(built, towers):
    """The last guard: TensorRT-RTX itself refuses, and that is a reason, not a crash."""
    if machine.gpu():
        pytest.skip("not shown here: there is a GPU")
    _, vision, _, _ = built
    spec = spec_of(StaticVision(towers.vision, GRID), "small", "tensorrt_rtx")
    with pytest.raises(EngineError, match="LOAD_FAIL"):
        EnginePlan(machine.bindings("tensorrt_rtx"), vision.entry.plan, spec, torch.device("cpu"))
