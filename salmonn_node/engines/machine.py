"""This machine: its TensorRT flavours and versions, and the GPU that plans are built for."""

from __future__ import annotations

import importlib
import importlib.metadata
from dataclasses import dataclass
from types import ModuleType

import torch

from salmonn_node.engines import reasons
from salmonn_node.engines.flavours import Flavour
from salmonn_node.engines.reasons import Reason

# A TensorRT-RTX plan built without naming a GPU runs on this compute capability and later (NVIDIA's TensorRT-RTX guide,
# "Compute Capability").
RTX_PORTABLE = "8.0+"
RTX_REFUSES = ("9.0",)  # Hopper is in no table of TensorRT-RTX 1.7


@dataclass(frozen=True)
class Gpu:
    """The CUDA device that torch uses: `compute_capability` such as "8.9", and `name` as reported by the driver."""

    compute_capability: str
    name: str


def gpu() -> Gpu | None:
    """The current CUDA device, or None."""
    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    return Gpu(f"{major}.{minor}", torch.cuda.get_device_name())


def bindings(flavour: Flavour) -> ModuleType | None:
    """The Python module of a flavour, or None if the module or its libraries are missing."""
    try:
        module = importlib.import_module(flavour)
    except (ImportError, OSError, RuntimeError):
        # `tensorrt` raises ImportError or OSError without its libraries. Its PyPI stub raises RuntimeError.
        return None
    return module if hasattr(module, "Builder") and hasattr(module, "Runtime") else None


def version(flavour: Flavour) -> str | None:
    """Full version of a flavour, or None."""
    module = bindings(flavour)
    return None if module is None else str(module.__version__)


def can_run(flavour: Flavour) -> Reason | None:
    """Return None if plans of a flavour can run here, else the reason."""
    found, device = version(flavour), gpu()
    if found is None:
        return Reason(reasons.NO_TRT, f"{flavour} is not installed (`salmonn doctor` says how)")
    if device is None:
        return Reason(reasons.NO_TRT, f"{flavour} {found} is installed, but torch sees no CUDA device")
    if flavour == "tensorrt_rtx" and device.compute_capability in RTX_REFUSES:
        return Reason(
            reasons.NO_TRT, f"{flavour} {found} does not support compute capability {device.compute_capability}"
        )
    return None


def target(flavour: Flavour) -> tuple[str, str]:
    """Return (compute capability, GPU name) for plans built here. TensorRT-RTX plans are portable and name neither.

    Raises:
        EngineError: `tensorrt` builds for the GPU of this machine, and there is none.
    """
    if flavour == "tensorrt_rtx":
        return RTX_PORTABLE, "any"
    device = gpu()
    if device is None:
        raise reasons.EngineError(Reason(reasons.NO_TRT, "tensorrt builds on the GPU that runs the plan; none is here"))
    return device.compute_capability, device.name


def package(name: str) -> str | None:
    """Version of an installed distribution, or None. Imports nothing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
