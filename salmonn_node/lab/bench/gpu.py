"""`salmonn bench gpu`: encoders, memory and language model at full size with random weights, against floors.

The floor of a part is its number of floating-point operations, counted on a run, divided by the measured bf16 matrix
rate. For decoding, it is the bytes of weights and cache divided by the measured copy rate. If a figure cannot be taken,
the report says why. `--dry-run` runs the same code at tiny size, also on a CPU.
"""

from __future__ import annotations

import argparse
import datetime
import subprocess
import time
import traceback
from typing import Any

import torch

from salmonn_node.engines import machine
from salmonn_node.engines.cache import EngineCache
from salmonn_node.lab.bench.gpu_parts import PARTS, Bench
from salmonn_node.model.profiles import profile


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run the parts one after another. If a part fails, its error is recorded and the others continue.

    Raises:
        RuntimeError: there is no GPU and this is not a dry run, or a part failed.
    """
    if machine.gpu() is None and not args.dry_run:
        raise RuntimeError("bench gpu: torch sees no GPU here; --dry-run checks the code at tiny size")
    config = profile("tiny" if args.dry_run else args.profile)
    bench = Bench(config, 1 if args.dry_run else args.repeats, EngineCache(args.root))
    figures: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "profile": config.name,
        "dry_run": args.dry_run,
        "device": describe(),
    }
    with torch.no_grad():
        for name, part in PARTS.items():
            if args.only and name not in args.only:
                continue
            started = time.monotonic()
            try:
                figures[name] = part(bench)
            except Exception as error:  # a part may run out of memory; the table shows the error
                figures[name] = {"error": f"{type(error).__name__}: {error}"}
                traceback.print_exc()
            figures[name]["took_s"] = round(time.monotonic() - started, 1)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            print(f"{name}: {figures[name]}", flush=True)
    failed = [name for name in PARTS if "error" in figures.get(name, {})]
    if args.dry_run and failed:
        raise RuntimeError(f"bench gpu: {', '.join(failed)} failed")
    return figures


def describe() -> dict[str, Any]:
    """Describe the GPU, its driver and limits, and the libraries."""
    device = machine.gpu()
    found: dict[str, Any] = {
        "gpu": device.name if device else None,
        "compute_capability": device.compute_capability if device else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "tensorrt": machine.version("tensorrt"),
        "tensorrt_rtx": machine.version("tensorrt_rtx"),
    }
    if device:
        asked = "driver_version,power.limit,clocks.max.sm,memory.total"
        command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
            found["nvidia_smi"] = done.stdout.strip()
        except (OSError, subprocess.SubprocessError) as error:
            found["nvidia_smi"] = str(error)
    return found
