"""`salmonn bench gpu`: encoders, memory and language model at full size with random weights, against floors.

Floors: floating-point operations, counted on a run, over the bf16 matrix rate measured here; for decoding, bytes of
weights and cache over the measured copy rate. A figure that cannot be taken says why. `--dry-run` walks the same code
at tiny size, on a CPU too.
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
    """Run the parts one after another; a part that fails leaves its error and the others go on.

    Raises:
        RuntimeError: there is no GPU, and it is no dry run.
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
            except Exception as error:  # a part may run out of memory; the table shows why its cells are empty
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
    """The GPU, its driver and limits, and the libraries."""
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
