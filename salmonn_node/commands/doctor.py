"""`salmonn doctor`: what this machine has, what it can build and run, and what to install for the rest."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path

from salmonn_node.engines.flavours import FLAVOURS

JETSON = Path("/etc/nv_tegra_release")
# Where one of these was found and does not work, the node would fail later.
MUST_WORK = ("decode JPEG images", "run kernels on the GPU")


@dataclass
class Ability:
    """One thing a machine may be able to do: `can`, and what is missing or has been found."""

    what: str
    can: bool
    detail: str


@dataclass
class Report:
    """Everything that `salmonn doctor` says."""

    facts: dict[str, str] = field(default_factory=dict)
    abilities: list[Ability] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--json", action="store_true", help="as JSON")


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _driver() -> str:
    if shutil.which("nvidia-smi") is None:
        return "none"
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader"]
        return subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout.strip() or "none"
    except (OSError, subprocess.SubprocessError) as error:
        return f"nvidia-smi fails: {error}"


def _there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def try_gpu() -> str:
    """Multiply two small matrices on the GPU and compare with the CPU; returns the fault in words, or "" when it works.

    A torch build for other architectures sees the GPU and fails at its first kernel; this is that kernel.
    """
    import torch

    try:
        left, right = (torch.arange(64.0).view(8, 8) + shift for shift in (0, 1))
        found = (left.cuda() @ right.cuda()).cpu()
    except RuntimeError as error:
        return str(error).strip().splitlines()[0]
    return "" if torch.equal(found, left @ right) else "a product of small matrices differs from the CPU's"


def try_decode() -> str:
    """Encode and decode a small JPEG; returns the fault in words, or "" when it works."""
    import cv2
    import numpy as np

    try:
        picture = np.full((16, 16, 3), 128, np.uint8)
        found = cv2.imdecode(cv2.imencode(".jpg", picture)[1], cv2.IMREAD_COLOR)
    except cv2.error as error:
        return str(error).strip().splitlines()[0]
    return "" if found is not None and abs(int(found.mean()) - 128) < 4 else "the picture is not what was encoded"


def examine() -> Report:
    """Look at this machine; nothing is changed and no network is used."""
    import torch

    from salmonn_node.engines import machine

    report, device = Report(), machine.gpu()
    facts = report.facts
    facts["python"] = platform.python_version()
    facts["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB memory"
    facts["torch"] = f"{torch.__version__} (CUDA {torch.version.cuda or 'not built in'})"
    capability = f"compute capability {device.compute_capability}" if device else ""
    if device:
        facts["torch's kernels"] = ", ".join(torch.cuda.get_arch_list()) or "none"
    facts["GPU"] = f"{device.name}, {capability}" if device else "none that torch sees"
    facts["NVIDIA driver"] = _driver()
    versions = {flavour: machine.version(flavour) for flavour in FLAVOURS}
    for flavour, found in versions.items():
        stub = machine.package(flavour) if found is None else None
        facts[flavour] = found or (f"package {stub}, but it cannot be imported" if stub else "not installed")
    for name in ("transformers", "torch_tensorrt", "onnx", "onnxscript", "onnxruntime"):
        facts[name] = machine.package(name) or "not installed"
    facts["ROS 2"] = "rclpy found" if _there("rclpy") else "no rclpy"
    facts["interfaces"] = "salmonn_interfaces found" if _there("salmonn_interfaces") else "no salmonn_interfaces"

    def ability(what: str, can: bool, detail: str, install: str = "") -> None:
        report.abilities.append(Ability(what, can, detail))
        if not can and install:
            report.advice.append(f"{what}: {install}")

    onnx = _there("onnx") and _there("onnxscript")
    ability("run the node", _there("rclpy") and _there("salmonn_interfaces"), facts["ROS 2"], "make setup")
    fault = try_decode()
    ability("decode JPEG images", not fault, fault or "opencv", "pip install opencv-python-headless")
    if device:
        fault = try_gpu()
        install = f"a build of torch for {device.name} ({capability}); on a Jetson NVIDIA's own wheel"
        ability("run kernels on the GPU", not fault, fault or facts["GPU"], install)
    ability("run encoders with torch", True, "on the GPU" if device and not fault else "on the CPU")
    ability("run encoders as CUDA graphs", device is not None, facts["GPU"], "a machine with an NVIDIA GPU")
    ability("export encoders to ONNX", onnx, facts["onnx"], "pip install 'salmonn_node[rtx]'")
    ability("check exports without a GPU", _there("onnxruntime"), facts["onnxruntime"], "pip install onnxruntime")
    ability(
        "build TensorRT-RTX plans",
        bool(versions["tensorrt_rtx"]) and onnx,
        facts["tensorrt_rtx"] + ("" if device else "; plans for GPUs of compute capability 8.0 and later, not 9.0"),
        "pip install 'salmonn_node[rtx]' (needs no GPU)",
    )
    refused = machine.can_run("tensorrt_rtx")
    found = str(refused or facts["tensorrt_rtx"])
    ability("run TensorRT-RTX plans", refused is None, found, "an RTX GPU and its driver")
    refused = machine.can_run("tensorrt")
    way = (
        "use JetPack's TensorRT: python3 -m venv --system-site-packages"
        if JETSON.exists()
        else "on a machine with an NVIDIA GPU: pip install 'salmonn_node[cuda]'"
    )
    ability("build and run TensorRT plans", refused is None and onnx, str(refused or facts["tensorrt"]), way)
    direct = refused is None and machine.package("torch_tensorrt") is not None
    ability("build through torch_tensorrt", direct, facts["torch_tensorrt"], way)
    return report


def run(args: argparse.Namespace) -> int:
    """Print the report; 1 when torch sees a GPU that it cannot use, or images cannot be decoded. No GPU is no fault."""
    report = examine()
    broken = any(not a.can for a in report.abilities if a.what in MUST_WORK)
    if args.json:
        print(json.dumps(asdict(report), indent=1))
        return int(broken)
    for name, value in report.facts.items():
        print(f"{name:>16}  {value}")
    print()
    for a in report.abilities:
        print(f"{'yes' if a.can else 'no':>4}  {a.what}: {a.detail}")
    if report.advice:
        print("\nFor the rest:")
        for line in report.advice:
            print(f"  {line}")
    return int(broken)
