"""Second front end: torch-tensorrt turns an exported program into a serialised engine. It has not run yet.

It needs NVIDIA's libraries and a GPU, so it is one guarded function. Its plan uses the same manifest, parity check and
runtime as the first front end.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn

from salmonn_node.engines import machine, reasons
from salmonn_node.engines.reasons import EngineError, Reason
from salmonn_node.engines.spec import EngineSpec


def export_program(static: nn.Module, spec: EngineSpec) -> tuple[torch.export.ExportedProgram, str, int]:
    """Export a static wrapper with `torch.export`: the program, a sha256 of its graph, and opset 0 (no ONNX)."""
    device = next(static.parameters()).device
    inputs = tuple(t.empty(device, fill=0.0) for t in spec.inputs)
    with torch.no_grad():
        program = torch.export.export(static.eval(), inputs)
    code = program.graph_module.print_readable(print_output=False, include_stride=False, include_device=False)
    lines = [line.split("#")[0].rstrip() for line in code.splitlines()]
    text = f"{machine.package('torch_tensorrt')}\n" + "\n".join(line for line in lines if line)
    return program, hashlib.sha256(text.encode()).hexdigest(), 0


def convert(program: torch.export.ExportedProgram, spec: EngineSpec, workspace_mib: int = 0) -> bytes:
    """Convert the whole program to a serialised engine.

    Raises:
        EngineError: NO_TRT without torch-tensorrt, its libraries or a GPU. LOAD_FAIL if an operator has no converter.
    """
    if machine.gpu() is None:
        raise EngineError(Reason(reasons.NO_TRT, "torch_tensorrt builds on the GPU that runs the plan; none is here"))
    try:
        import torch_tensorrt
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(Reason(reasons.NO_TRT, f"torch_tensorrt: {error} (`salmonn doctor` says how)")) from error
    inputs: tuple[Any, ...] = tuple(t.empty("cuda", fill=0.0) for t in spec.inputs)
    try:
        plan = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
            program,
            arg_inputs=inputs,
            use_explicit_typing=True,
            require_full_compilation=True,  # otherwise an unsupported operator silently stays in torch
            attn_bias_is_causal=False,  # the default replaces any attention mask by a causal one
            disable_tf32=spec.dtype == "fp32",
            workspace_size=workspace_mib << 20,
            cache_built_engines=False,  # its cache ignores TensorRT's version, the GPU and the weights
            reuse_cached_engines=False,
        )
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise EngineError(Reason(reasons.LOAD_FAIL, f"torch_tensorrt: {type(error).__name__}: {error}")) from error
    return bytes(plan)
