"""Backends that run a static encoder. All have the same interface: tensor in, tuple of tensors out, and `close()`.

torch owns the CUDA stream and every tensor. `EnginePlan` and `TorchGraph` need a GPU and have not run on one yet.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from salmonn_node.engines import reasons
from salmonn_node.engines.reasons import EngineError, Reason
from salmonn_node.engines.spec import EngineSpec

log = logging.getLogger(__name__)


class EncoderBackend(Protocol):
    """One encoder, ready to run."""

    name: str

    def __call__(self, tensor: Tensor) -> Sequence[Tensor]:
        """Map a tensor of the spec's input shape to the spec's outputs."""

    def close(self) -> None:
        """Free all resources."""


class TorchEager:
    """The static wrapper, run by torch as it is."""

    name = "torch"

    def __init__(self, static: nn.Module):
        self._static: nn.Module | None = static.eval()

    @torch.no_grad()
    def __call__(self, tensor: Tensor) -> Sequence[Tensor]:
        """Run the module."""
        assert self._static is not None, "closed"
        return self._static(tensor)

    def close(self) -> None:
        """Release the module."""
        self._static = None


class TorchGraph:
    """The static wrapper recorded once as a CUDA graph, optionally compiled first. Needs a CUDA device."""

    name = "torch_graph"

    def __init__(self, static: nn.Module, spec: EngineSpec, device: torch.device, compiled: bool = False):
        if not torch.cuda.is_available():
            raise EngineError(Reason(reasons.NO_CUDA, "a CUDA graph needs a CUDA device"))
        run = torch.compile(static.eval(), fullgraph=True, dynamic=False) if compiled else static.eval()
        self._input = spec.inputs[0].empty(device, fill=0.0)
        self._graph: torch.cuda.CUDAGraph | None = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream), torch.no_grad():
            for _ in range(3):  # warm up, so that library setup and compilation happen before recording
                run(self._input)
        torch.cuda.current_stream(device).wait_stream(stream)
        with torch.no_grad(), torch.cuda.graph(self._graph):
            self._outputs: Sequence[Tensor] = run(self._input)

    def __call__(self, tensor: Tensor) -> Sequence[Tensor]:
        """Replay the graph; the outputs are copies, so that the next call cannot change them."""
        assert self._graph is not None, "closed"
        self._input.copy_(tensor)
        self._graph.replay()
        return [t.clone() for t in self._outputs]

    def close(self) -> None:
        """Free the graph and its memory."""
        self._graph, self._outputs = None, ()


class OnnxCpu:
    """An exported graph on ONNX Runtime's CPU provider, for tests and for the parity check of an export."""

    name = "onnx_cpu"

    def __init__(self, path: Path, spec: EngineSpec, threads: int = 0):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3
        self._spec = spec
        self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def __call__(self, tensor: Tensor) -> Sequence[Tensor]:
        """Run the graph on float32 copies."""
        found = self._session.run(
            [t.name for t in self._spec.outputs], {self._spec.inputs[0].name: tensor.float().numpy()}
        )
        return [torch.from_numpy(array) for array in found]

    def close(self) -> None:
        """Close the session."""
        self._session = None


class EnginePlan:
    """A serialised engine of `tensorrt` or `tensorrt_rtx`. It runs on torch's current stream and reuses its tensors.

    Args:
        bindings: the imported module of the flavour.
        path: the plan file. The caller has checked it against its manifest.
        spec: names, shapes and dtypes that the plan must have.
        device: device of the tensors.
        cuda_graph: record the execution once and replay it.
    """

    def __init__(
        self, bindings: ModuleType, path: Path, spec: EngineSpec, device: torch.device, cuda_graph: bool = False
    ):
        self.name: str = spec.flavour
        self._spec, self._device = spec, device
        self._graph: torch.cuda.CUDAGraph | None = None
        self._runtime = bindings.Runtime(bindings.Logger(bindings.Logger.ERROR))
        plan = path.read_bytes()
        if hasattr(self._runtime, "get_engine_validity"):  # TensorRT-RTX checks version, GPU and driver in the header
            validity, diagnostics = self._runtime.get_engine_validity(plan)
            if validity == bindings.EngineValidity.INVALID:
                raise EngineError(
                    Reason(reasons.LOAD_FAIL, f"{spec.flavour} finds the plan invalid here ({diagnostics})")
                )
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineError(
                Reason(reasons.LOAD_FAIL, f"{spec.flavour} could not deserialise {path.name} (see its log)")
            )
        self._check_tensors()
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise EngineError(Reason(reasons.LOAD_FAIL, "no execution context: not enough GPU memory?"))
        self._input = spec.inputs[0].empty(device, fill=0.0)
        # Fill the outputs with NaN, so that an output that is never written is not mistaken for a result.
        self._outputs = [t.empty(device, fill=float("nan")) for t in spec.outputs]
        for t, tensor in zip((*spec.inputs, *spec.outputs), (self._input, *self._outputs), strict=True):
            self._context.set_tensor_address(t.name, tensor.data_ptr())
        self._execute()
        self._synchronise()
        if cuda_graph:
            self._record()

    def _check_tensors(self) -> None:
        engine, wanted = self._engine, {t.name: t for t in (*self._spec.inputs, *self._spec.outputs)}
        names = {engine.get_tensor_name(i) for i in range(engine.num_io_tensors)}
        if names != set(wanted):
            raise EngineError(
                Reason(reasons.LOAD_FAIL, f"the plan's tensors are {sorted(names)}, not {sorted(wanted)}")
            )
        kinds = {"bf16": "BF16", "fp16": "HALF", "fp32": "FLOAT"}
        for name, t in wanted.items():
            shape, kind = tuple(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name).name
            if (shape, kind) != (t.shape, kinds[t.dtype]):
                raise EngineError(
                    Reason(reasons.LOAD_FAIL, f"the plan's {name} is {kind}{shape}, not {t.dtype}{t.shape}")
                )

    def _execute(self) -> None:
        stream = torch.cuda.current_stream(self._device).cuda_stream if self._device.type == "cuda" else 0
        if not self._context.execute_async_v3(stream):
            raise EngineError(Reason(reasons.RUNTIME_FAIL, f"{self.name}: execute_async_v3 failed (see its log)"))

    def _synchronise(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _record(self) -> None:
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            self._execute()
        torch.cuda.current_stream(self._device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._execute()
        self._graph = graph

    def __call__(self, tensor: Tensor) -> Sequence[Tensor]:
        """Run the plan; the outputs are copies, so that the next call cannot change them."""
        if self._context is None:
            raise EngineError(Reason(reasons.RUNTIME_FAIL, f"{self.name}: called after close()"))
        self._input.copy_(tensor)
        if self._graph is not None:
            self._graph.replay()
        else:
            self._execute()
        return [t.clone() for t in self._outputs]

    def poison(self) -> None:
        """Fill the outputs with NaN, so that an output that the next call does not write is noticed."""
        for tensor in self._outputs:
            tensor.fill_(float("nan"))

    def close(self) -> None:
        """Free the context, the engine and the tensors, in this order."""
        if self._context is not None:
            self._synchronise()
        self._graph = self._context = self._engine = self._runtime = None
        self._outputs = []
