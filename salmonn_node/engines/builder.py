"""Builder process: `python -m salmonn_node.engines.builder job.json` turns an ONNX file into a plan.

It imports neither torch nor transformers, so its peak memory is that of TensorRT. It writes progress and the result as
JSON lines to standard output. TensorRT's own log goes to the job's log file. The same code works with `tensorrt` 10 and
11 and with `tensorrt_rtx`.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any, TextIO


def say(**values: Any) -> None:
    """Write one JSON line to the process that started the build."""
    print(json.dumps(values), flush=True)


def peak_rss_mib() -> float:
    """Largest resident size of this process so far, in MiB.

    Uses /proc if it exists, because `ru_maxrss` of a new process starts at the value of its parent.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make_logger(trt: Any, stream: TextIO) -> Any:
    """Make a TensorRT logger that writes to a file and keeps the errors."""

    class Log(trt.ILogger):
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)
            if severity != trt.ILogger.Severity.VERBOSE:
                stream.write(f"{severity.name}: {message}\n")
                stream.flush()

    return Log()


def make_monitor(trt: Any) -> Any:
    """Make a progress monitor that reports the outermost phases."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            super().__init__()
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self.steps[phase_name] = num_steps
                say(phase=phase_name, step=0, steps=num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self.steps:
                say(phase=phase_name, step=step + 1, steps=self.steps[phase_name])
            return True

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

    return Monitor()


def loosen_attention(trt: Any, network: Any) -> int:
    """Allow TensorRT to decompose each attention that has no fused kernel. Return the number of attentions.

    Otherwise a shape without a fused kernel (head size 72 of the vision tower, float32) aborts the build.
    """
    if not hasattr(trt.LayerType, "ATTENTION_OUTPUT"):
        return 0
    layers = map(network.get_layer, range(network.num_layers))
    found = [layer for layer in layers if layer.type == trt.LayerType.ATTENTION_OUTPUT]
    for layer in found:
        layer.__class__ = trt.IAttentionOutputLayer  # how TensorRT's bindings downcast a layer
        layer.attention.decomposable = True
    return len(found)


def build(job: dict[str, Any], stream: TextIO) -> dict[str, Any]:
    """Parse the graph, build and write the plan. Return the flags used.

    Raises:
        RuntimeError: the graph does not parse, or TensorRT produces no plan. The message holds TensorRT's errors.
    """
    trt = importlib.import_module(job["flavour"])
    log = make_logger(trt, stream)
    builder = trt.Builder(log)
    flags, creation = [], 0
    if hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        # Required from 10.12 on. TensorRT 11 only has strongly typed networks.
        creation = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        flags.append("STRONGLY_TYPED")
    network = builder.create_network(creation)
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(job["graph"]):
        found = [str(parser.get_error(i)) for i in range(parser.num_errors)]
        raise RuntimeError("the graph does not parse: " + ("; ".join(found) or "; ".join(log.errors)))
    if loosen_attention(trt, network):
        flags.append("DECOMPOSABLE_ATTENTION")
    config = builder.create_builder_config()
    if job["dtype"] == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)
        flags.append("NO_TF32")
    if job.get("workspace_mib"):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(job["workspace_mib"]) << 20)
    timing = Path(job["timing_cache"]) if job.get("timing_cache") else None
    if timing is not None:
        cache = config.create_timing_cache(timing.read_bytes() if timing.exists() else b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    config.progress_monitor = make_monitor(trt)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError("no plan came out: " + ("; ".join(log.errors[-3:]) or "TensorRT gave no reason"))
    with open(job["plan"], "wb") as out:
        out.write(plan)
    if timing is not None:
        temporary = timing.with_suffix(".new")
        temporary.write_bytes(bytes(config.get_timing_cache().serialize()))
        temporary.replace(timing)
    return {"flags": flags, "layers": network.num_layers, "trt_version": str(trt.__version__)}


def main(argv: list[str]) -> int:
    """Run one job file. On failure, write an `error` line and return exit status 1."""
    job = json.loads(Path(argv[0]).read_text())
    started = time.monotonic()
    with open(job["log"], "w") as stream:
        try:
            found = build(job, stream)
        except Exception as error:
            stream.write(f"FAILED: {error}\n")
            say(error=f"{type(error).__name__}: {error}")
            return 1
    say(done=True, seconds=time.monotonic() - started, peak_rss_mib=peak_rss_mib(), **found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
