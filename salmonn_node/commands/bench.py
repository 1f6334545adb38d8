"""`salmonn bench NAME`: a table of benchmarks, each run with a stated number of threads, as tables and as JSON.

A benchmark is a module with run(args) -> dict of JSON values, and optionally tables(results) -> rich tables. Its
arguments stand in bench_arguments.py. Timings on a shared machine are noisy, so that modules report ratios within one
run.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salmonn_node.commands.bench_arguments import ARGUMENTS

if TYPE_CHECKING:
    from rich.table import Table

# name -> (modules whose results stand under their last name, help)
BENCHMARKS: dict[str, tuple[tuple[str, ...], str]] = {
    "memory": (
        ("salmonn_node.lab.bench.ttt_layer", "salmonn_node.lab.bench.token_memory"),
        "throughput of the TTT layer and cost of a token-memory step",
    ),
    "recall": (
        ("salmonn_node.lab.bench.recall",),
        "what the fast weights recall, by update rule, age and stream length",
    ),
    "facts": (
        ("salmonn_node.lab.bench.facts",),
        "facts of the synthetic world in the fast weights alone, by update rule",
    ),
    "events": (
        ("salmonn_node.lab.bench.events",),
        "what fast weights over events remember, against lists and tables of the same bytes",
    ),
    "days": (
        ("salmonn_node.lab.bench.days",),
        "thirty days of events, then questions about the newest hours: bytes, time, what is still right",
    ),
    "overhead": (
        ("salmonn_node.lab.bench.overhead",),
        "what answers from events cost: CPU of a second of stream, time until the first text",
    ),
    "discard": (("salmonn_node.lab.bench.discard",), "what each discard rule still holds after an hour"),
    "hours": (
        ("salmonn_node.lab.bench.hours",),
        "three hours of frames through the whole memory: bytes held, norms",
    ),
    "endurance": (("salmonn_node.lab.bench.endurance",), "norms of the fast weights over 100 000 mini-batches"),
    "persist": (
        ("salmonn_node.lab.bench.persist",),
        "what keeping the memory on disk costs: time, pauses, bytes an hour",
    ),
    "gpu": (
        ("salmonn_node.lab.bench.gpu",),
        "encoders, memory and language model at full size on a GPU, against floors",
    ),
    "ingest": (
        ("salmonn_node.lab.bench.ingest",),
        "the node's inputs: received, used, dropped, callback times, CPU share",
    ),
    "answers": (
        ("salmonn_node.lab.bench.answers",),
        "questions at once with short deadlines while sensors send: overshoot, p50 and p99 by type",
    ),
    "abstain": (
        ("salmonn_node.lab.bench.abstain",),
        "photographs and strange voices, then questions of the synthetic world: abstains or invents",
    ),
    "soak": (
        ("salmonn_node.lab.bench.soak",),
        "kills, stops, full disks and nonsense while planners ask: crashes, lost replies, memory, growth",
    ),
    "video": (
        ("salmonn_node.lab.bench.video",),
        "video topics at 30 Hz: CPU seconds for an hour of stream, one frame a second looked at",
    ),
    "album": (
        ("salmonn_node.lab.bench.album",),
        "which scenes of photographs with revisits are among the pictures that the album keeps",
    ),
    "reader": (
        ("salmonn_node.lab.bench.reader",),
        "whether the evidence is among the pictures that a server is sent (a stub; needs the world extra)",
    ),
    "evidence": (
        ("salmonn_node.lab.bench.evidence",),
        "evidence without an evidence head: its cost, and with --work how often it is right",
    ),
    "footprint": (
        ("salmonn_node.lab.bench.footprint",),
        "peak memory of a checkpoint beside its prediction, seconds, error of quantised weights",
    ),
    "model": (
        ("salmonn_node.lab.bench.model",),
        "the network as a stream: ingest, first token, ten questions, 8B floors",
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-command for each benchmark, and what all share."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    common.add_argument("--threads", type=int, help="threads of torch (torch's own choice)")
    names = parser.add_subparsers(dest="benchmark", required=True, metavar="NAME")
    for name, (_, text) in BENCHMARKS.items():
        ARGUMENTS[name](
            names.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", parents=[common])
        )


def run(args: argparse.Namespace) -> int:
    """Run one benchmark, print its tables, write its JSON; 1 when its results say that it did not pass."""
    import torch
    from rich.console import Console

    if args.threads:
        torch.set_num_threads(args.threads)
    console = Console()
    status = 0
    figures: dict[str, Any] = {"benchmark": args.benchmark, "machine": machine()}
    for name in BENCHMARKS[args.benchmark][0]:
        module = importlib.import_module(name)
        results = module.run(args)
        figures[name.rsplit(".", 1)[-1]] = results
        if results.get("passed") is False:
            status = 1
        for table in module.tables(results) if hasattr(module, "tables") else [plain_table(results)]:
            console.print(table)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
    return status


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    import torch

    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def plain_table(results: dict[str, Any]) -> Table:
    """Names and values, for a benchmark without tables of its own."""
    from rich.table import Table

    table = Table("figure", "value")
    for name, value in results.items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    return table
