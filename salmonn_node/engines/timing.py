"""Time an encoder on each backend of this machine: warm-up, median, CUDA synchronised."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable

import torch

from salmonn_node.engines import machine, reasons
from salmonn_node.engines.cache import EngineCache
from salmonn_node.engines.reasons import EngineError, Reason
from salmonn_node.engines.request import Request
from salmonn_node.engines.runtime import BackendName, EngineSettings, load
from salmonn_node.engines.spec import DTYPES
from salmonn_node.engines.wrappers import spec_of, weights_sha256


def seconds(call: Callable[[], object], repeats: int, warm: int = 2) -> float:
    """Median wall seconds of a call. On a GPU, includes the wait until its work is done."""
    done = torch.cuda.synchronize if torch.cuda.is_available() else (lambda: None)
    for _ in range(warm):
        call()
    done()
    found = []
    for _ in range(max(1, repeats)):
        started = time.perf_counter()
        call()
        done()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def bench_request(request: Request, cache: EngineCache, repeats: int) -> list[str]:
    """Return one line per backend: milliseconds per call, or why it cannot run here."""
    static = request.static(request.dtype)
    if machine.gpu() is not None:
        static = static.to("cuda")
    spec = spec_of(static, request.model, request.flavour)
    device = next(static.parameters()).device
    given = torch.rand(spec.inputs[0].shape).to(device, DTYPES[spec.dtype])
    lines = []
    ways: list[tuple[str, BackendName, bool]] = [
        ("torch", "torch", False),
        ("torch_graph", "torch_graph", False),
        ("torch_graph, compiled", "torch_graph", True),
        ("tensorrt", "tensorrt", False),
        ("tensorrt_rtx", "tensorrt_rtx", False),
    ]
    for label, backend, compiled in ways:
        settings = EngineSettings(backend, root=cache.root, compiled=compiled, cuda_graph=True)
        try:
            encoder = load(spec, static, lambda: weights_sha256(static.tower, spec.dtype), settings)
        except EngineError as error:
            lines.append(f"{spec.label} {spec.dtype} {label}: {error}")
            continue
        if encoder.backend != backend:
            why = encoder.reason or Reason(reasons.NO_CUDA, "no CUDA device")
            lines.append(f"{spec.label} {spec.dtype} {label}: {why}")
        else:
            taken = seconds(functools.partial(encoder, given), repeats)
            lines.append(f"{spec.label} {spec.dtype} {label}: {taken * 1e3:.2f} ms on {device.type}")
        encoder.close()
    return lines
