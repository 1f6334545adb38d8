"""Runtime of one encoder: choose the best backend that this machine may use, and report why not a better one."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from salmonn_node.engines import machine, reasons
from salmonn_node.engines.backends import EncoderBackend, EnginePlan, TorchEager, TorchGraph
from salmonn_node.engines.cache import EngineCache
from salmonn_node.engines.flavours import Flavour
from salmonn_node.engines.reasons import EngineError, Reason
from salmonn_node.engines.spec import EngineSpec

log = logging.getLogger(__name__)

BackendName = Literal["auto", "tensorrt", "tensorrt_rtx", "torch_graph", "torch"]
BACKENDS: tuple[BackendName, ...] = ("auto", "tensorrt", "tensorrt_rtx", "torch_graph", "torch")


@dataclass(frozen=True)
class EngineSettings:
    """How to run the encoders.

    Attributes:
        backend: `auto` uses the first that works of tensorrt, tensorrt_rtx, torch_graph (these on a GPU), torch.
        require_engine: raise EngineError instead of falling back to torch.
        root: folder of plans. None means `cache.default_root()`.
        dtype: dtype of the plans. None means that of the network.
        grids: load a plan for each of these (rows, columns) of patches.
        cuda_graph: record plans as CUDA graphs.
        compiled: compile the torch module before `torch_graph` records it.
    """

    backend: BackendName = "auto"
    require_engine: bool = False
    root: Path | None = None
    dtype: str | None = None
    grids: tuple[tuple[int, int], ...] = field(default=())
    cuda_graph: bool = False
    compiled: bool = False

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f"backend: {self.backend!r} is none of {', '.join(BACKENDS)}")


class LoadedEncoder:
    """A loaded encoder. `backend` names what runs it. `reason` says why it is not a plan (None if it is)."""

    def __init__(self, spec: EngineSpec, backend: EncoderBackend, reason: Reason | None):
        self.spec, self.backend, self.reason = spec, backend.name, reason
        self._run: EncoderBackend | None = backend
        self._turn = threading.Lock()  # a backend has one set of tensors; observer and questions share it
        self.calls = 0

    def __call__(self, tensor: Tensor) -> Sequence[Tensor]:
        """Run the encoder on one input of exactly the spec's shape.

        Raises:
            ValueError: the shape is wrong. Nothing was run.
            EngineError: RUNTIME_FAIL. Do not use the encoder again.
        """
        if self._run is None:
            raise EngineError(Reason(reasons.RUNTIME_FAIL, f"{self.spec.label}: called after close()"))
        if tuple(tensor.shape) != self.spec.inputs[0].shape:
            raise ValueError(
                f"input: shape {tuple(tensor.shape)} is not {self.spec.label}'s {self.spec.inputs[0].shape}"
            )
        with self._turn:
            try:
                found = self._run(tensor)
            except EngineError:
                raise
            except RuntimeError as error:  # after a CUDA error the context is lost, so do not retry
                why = f"{self.spec.label} on {self.backend}: {error}"
                raise EngineError(Reason(reasons.RUNTIME_FAIL, why)) from error
            self.calls += 1
            return found

    def close(self) -> None:
        """Free the backend. You may call it twice."""
        if self._run is not None:
            self._run.close()
        self._run = None


def _plan(
    spec: EngineSpec, sha256: Callable[[], str], settings: EngineSettings, device: torch.device
) -> EnginePlan | Reason:
    """Load the plan of one flavour and run it once, or return the reason why not."""
    refusal = machine.can_run(spec.flavour)
    if refusal is not None:
        return refusal
    entry = EngineCache(settings.root).find(spec, sha256(), machine.gpu())
    if isinstance(entry, Reason):
        return entry
    bindings = machine.bindings(spec.flavour)
    assert bindings is not None
    try:
        return EnginePlan(bindings, entry.plan, spec, device, settings.cuda_graph)
    except EngineError as error:
        return Reason(reasons.LOAD_FAIL, f"{error.reason.detail} ({entry.folder.name})")
    except (RuntimeError, OSError, MemoryError) as error:
        return Reason(reasons.LOAD_FAIL, f"{type(error).__name__}: {error} ({entry.folder.name})")


def load(
    spec: EngineSpec, static: nn.Module, sha256: Callable[[], str], settings: EngineSettings | None = None
) -> LoadedEncoder:
    """Load the encoder of `spec` on the backend that `settings` choose. Loads plans, but never builds one.

    Args:
        spec: the encoder to run. Its flavour is ignored with `backend: auto`, which tries both.
        static: the static wrapper on the device to use. It is the fallback.
        sha256: returns `weights_sha256` of the tower in the spec's dtype. Called only if a plan could run.
        settings: see EngineSettings.

    Raises:
        EngineError: `require_engine` is set and no plan can be used. The reason says why.
    """
    settings = settings or EngineSettings()
    device = next(static.parameters()).device
    flavours: tuple[Flavour, ...] = ()
    if settings.backend == "auto":
        flavours = ("tensorrt", "tensorrt_rtx")
    elif settings.backend in ("tensorrt", "tensorrt_rtx"):
        flavours = (settings.backend,)
    refusals: list[Reason] = []
    for flavour in flavours:
        wanted = dataclasses.replace(spec, flavour=flavour)
        found = _plan(wanted, sha256, settings, device)
        if isinstance(found, EnginePlan):
            return LoadedEncoder(wanted, found, None)
        refusals.append(found)
    # With two flavours, report the one that got further.
    reason = next((r for r in refusals if r.kind != reasons.NO_TRT), refusals[-1] if refusals else None)
    if settings.require_engine:
        raise EngineError(reason or Reason(reasons.NO_ENGINE, f"backend {settings.backend!r} is no engine"))
    if settings.backend == "torch_graph" or (settings.backend == "auto" and device.type == "cuda"):
        try:
            return LoadedEncoder(spec, TorchGraph(static, spec, device, settings.compiled), reason)
        except EngineError as error:
            reason = reason or error.reason
        except RuntimeError as error:
            reason = reason or Reason(reasons.LOAD_FAIL, f"torch_graph: {error}")
    return LoadedEncoder(spec, TorchEager(static), reason)
