"""Build a plan: export a tower, check the graph, build in a subprocess, check the plan, move it into the cache."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from salmonn_node.engines import machine, manifest, parity, reasons
from salmonn_node.engines.backends import EnginePlan, OnnxCpu
from salmonn_node.engines.builder import peak_rss_mib
from salmonn_node.engines.cache import CacheEntry, EngineCache
from salmonn_node.engines.export import export_onnx, graph_sha256, opset_for, widen
from salmonn_node.engines.manifest import Fields, PlanManifest
from salmonn_node.engines.reasons import EngineError, Reason
from salmonn_node.engines.request import FrontEnd, Request
from salmonn_node.engines.spec import DTYPES, EngineSpec
from salmonn_node.engines.wrappers import StaticEncoder, cast_copy, spec_of, weights_sha256

Say = Callable[[str], None]


@dataclass
class Built:
    """Result of a build: the entry, whether it existed before, and seconds and MiB per step."""

    entry: CacheEntry
    reused: bool
    seconds: dict[str, float] = field(default_factory=dict)
    peak_rss_mib: dict[str, float] = field(default_factory=dict)


def build_engine(request: Request, cache: EngineCache, say: Say = lambda line: None) -> Built:
    """Build one plan, or return the existing one.

    Raises:
        EngineError: the flavour is missing, the graph or the plan fails parity, or TensorRT produces no plan. Nothing
            stays in the cache.
    """
    version = machine.version(request.flavour)
    if version is None:
        raise EngineError(Reason(reasons.NO_TRT, f"{request.flavour} is not installed (`salmonn doctor` says how)"))
    capability, gpu_name = machine.target(request.flavour)
    static = request.static(request.dtype)
    if request.front_end == "torch_tensorrt" and machine.gpu() is not None:
        static = static.to("cuda")  # torch_tensorrt converts on the GPU that will run the plan
    spec = spec_of(static, request.model, request.flavour)
    opset = opset_for(request.flavour, version)
    seconds: dict[str, float] = {}
    peaks: dict[str, float] = {}
    with cache.lock(spec.model), cache.workspace(spec.model) as folder:
        started = time.monotonic()
        say(f"{spec.label} {spec.dtype}: export ({request.front_end})")
        if request.front_end == "onnx":
            graph = export_onnx(static, spec, folder, opset)
            digest = graph_sha256(graph)
        else:
            from salmonn_node.engines import torch_trt

            exported, digest, opset = torch_trt.export_program(static, spec)
            graph = None
        seconds["export"] = time.monotonic() - started
        fields = Fields(
            **manifest.expected(spec, weights_sha256(static.tower, spec.dtype)),
            front_end=request.front_end,
            graph_sha256=digest,
            opset=opset,
            flags=builder_flags(spec, request.front_end, opset),
            compute_capability=capability,
            gpu_name=gpu_name,
        )
        place = cache.root / spec.model / fields.folder
        there = CacheEntry(place, manifest.read(place))
        whole = isinstance(there.manifest, PlanManifest) and manifest.damaged(there.folder, there.manifest) is None
        if whole and not request.force:
            return Built(there, True, seconds, peaks)
        record = parity.Parity()
        if graph is not None and request.seeds:
            started = time.monotonic()
            say(f"{spec.label} {spec.dtype}: parity of the graph on ONNX Runtime")
            record.graph = graph_parity(request, static, spec, graph)
            refused = parity.worst(record.graph)
            if refused is not None:
                raise EngineError(Reason(refused.kind, f"the exported graph: {refused.detail}"))
            seconds["graph_parity"] = time.monotonic() - started
        peaks["command"] = peak_rss_mib()
        say(f"{spec.label} {spec.dtype}: build with {spec.flavour} {version}")
        plan, log = folder / manifest.PLAN, folder / "build.log"
        if graph is not None:
            timing = cache.root / f"timing-{version}-{capability}.bin" if spec.flavour == "tensorrt" else None
            job = {
                "flavour": spec.flavour,
                "graph": str(graph),
                "plan": str(plan),
                "log": str(log),
                "dtype": spec.dtype,
                "timing_cache": str(timing) if timing else "",
                "workspace_mib": request.workspace_mib,
            }
            result = run_builder(job, folder, lambda line: say(f"{spec.label} {spec.dtype}: {line}"))
            seconds["build"], peaks["builder"] = result["seconds"], result["peak_rss_mib"]
            missing = set(result["flags"]) ^ set(fields.flags)
            if missing:
                raise EngineError(Reason(reasons.LOAD_FAIL, f"the builder's flags differ: {sorted(missing)}"))
            for part in (graph, graph.with_name(graph.name + ".data")):
                part.unlink(missing_ok=True)
        else:
            started = time.monotonic()
            plan.write_bytes(torch_trt.convert(exported, spec, request.workspace_mib))
            log.write_text("built in process by torch_tensorrt\n")
            seconds["build"] = time.monotonic() - started
        built = PlanManifest(
            fields, manifest.file_sha256(plan), plan.stat().st_size, built=provenance(seconds, peaks, request)
        )
        record = plan_parity(request, static, spec, plan, built.plan_sha256, record)
        record.write(folder)
        refused = parity.worst(record.plan)
        if refused is not None and spec.dtype == "fp16":
            raise EngineError(Reason(refused.kind, f"fp16 is kept only when it passes parity: {refused.detail}"))
        return Built(cache.install(folder, built), False, seconds, peaks)


def builder_flags(spec: EngineSpec, front_end: FrontEnd, opset: int) -> list[str]:
    """Return the builder flags for a spec. They are part of the key."""
    flags = ["STRONGLY_TYPED"]
    if front_end == "onnx" and opset >= 23:
        flags.append("DECOMPOSABLE_ATTENTION")
    if spec.dtype == "fp32":
        flags.append("NO_TF32")
    return flags


def graph_parity(request: Request, static: StaticEncoder, spec: EngineSpec, graph: Path) -> list[parity.Measure]:
    """Compare the exported graph, widened to float32, on ONNX Runtime with torch and the same rounded weights."""
    path = graph if spec.dtype == "fp32" else widen(graph, graph.with_name("wide.onnx"))
    reference = request.around(cast_copy(static.tower, torch.float32))
    encoder = OnnxCpu(path, spec)
    inputs = parity.cases(spec, request.real, request.seeds)
    found = parity.compare(encoder, reference, None if spec.dtype == "fp32" else static, spec, inputs)
    encoder.close()
    if path != graph:
        for part in (path, path.with_name(path.name + ".data")):
            part.unlink(missing_ok=True)
    return found


def plan_parity(
    request: Request, static: StaticEncoder, spec: EngineSpec, plan: Path, sha256: str, record: parity.Parity
) -> parity.Parity:
    """Compare the plan on this machine's GPU with float32 torch, or record why it was not run."""
    refused, device = machine.can_run(spec.flavour), machine.gpu()
    if refused is not None or device is None:
        record.not_run = str(refused)
        return record
    where = torch.device("cuda")
    bindings = machine.bindings(spec.flavour)
    assert bindings is not None
    encoder = EnginePlan(bindings, plan, spec, where)

    def poisoned(tensor: Tensor) -> Sequence[Tensor]:
        encoder.poison()
        return encoder(tensor)

    reference = request.around(cast_copy(request.tower, torch.float32).to(where))
    same = None
    if spec.dtype != "fp32":
        same = request.around(cast_copy(static.tower, DTYPES[spec.dtype]).to(where))
    inputs = parity.cases(spec, request.real, max(request.seeds, 1))
    record.plan = parity.compare(poisoned, reference, same, spec, inputs, where)
    record.plan_sha256, record.not_run = sha256, ""
    record.compute_capability, record.gpu_name = device.compute_capability, device.name
    encoder.close()
    return record


def run_builder(job: dict[str, Any], folder: Path, say: Say) -> dict[str, Any]:
    """Run `builder.py` in its own process and return its result.

    Raises:
        EngineError: it failed or was killed, for example by the kernel for lack of memory. The message says why.
    """
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    command = [sys.executable, "-m", "salmonn_node.engines.builder", str(path)]
    root = str(Path(__file__).resolve().parents[2])
    result: dict[str, Any] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as child:
        assert child.stdout is not None
        for line in child.stdout:
            try:
                values = json.loads(line)
            except ValueError:
                continue
            if "phase" in values:
                say(f"{values['phase']} {values['step']}/{values['steps']}")
            else:
                result = values
    path.unlink()
    if child.returncode != 0 or "done" not in result:
        why = result.get("error") or f"the builder ended with status {child.returncode}"
        raise EngineError(Reason(reasons.LOAD_FAIL, f"{job['flavour']} gave no plan: {why}"))
    return result


def provenance(seconds: dict[str, float], peaks: dict[str, float], request: Request) -> dict[str, Any]:
    """How a plan was made, for people. Not part of the key."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": {k: round(v, 3) for k, v in seconds.items()},
        "peak_rss_mib": {k: round(v) for k, v in peaks.items()},
        "torch": str(torch.__version__),
        "transformers": machine.package("transformers"),
        "salmonn_node": machine.package("salmonn_node"),
        "parameters": sum(p.numel() for p in request.tower.parameters()),
    }
