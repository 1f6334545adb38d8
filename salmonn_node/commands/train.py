"""`salmonn train tiny`: the recipe of the tiny checkpoint, stage by stage, resumable."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from salmonn_node.lab.training.stages import STAGES, GateError
from salmonn_node.lab.training.work import Work

FIRST_COLUMNS = ("step", "s", "loss")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `salmonn train`."""
    parser.add_argument("checkpoint", choices=["tiny"], help="what to train")
    parser.add_argument("--work", type=Path, default=Path("train_tiny"), help="folder for data, states and logs")
    parser.add_argument("--stage", choices=[*STAGES, "all"], default="all", help="one stage, or all that are missing")
    parser.add_argument("--seed", type=int, default=1, help="of the weights and the order of the data")
    parser.add_argument(
        "--rehearsal", action="store_true", help="all stages on little data and for a few steps, in its own folder"
    )
    parser.add_argument("--out", type=Path, help="write the checkpoint here when all stages are done")


def run(args: argparse.Namespace) -> int:
    """Train; returns 1 when a gate is not reached."""
    import torch

    console = Console(soft_wrap=True)
    torch.set_num_threads(1)  # two threads wait for each other more than they gain at these sizes
    work = Work(args.work / "rehearsal" if args.rehearsal else args.work, args.seed, args.rehearsal)
    for name, stage in STAGES.items():
        if args.stage not in ("all", name):
            continue
        console.rule(f"{name}: {(stage.__doc__ or '').splitlines()[0]}")
        try:
            for line in stage(work):
                figures = [k for k in FIRST_COLUMNS if k in line] + [k for k in line if k not in FIRST_COLUMNS]
                console.print("  ".join(f"{key} {line[key]:g}" for key in figures), highlight=False)
        except GateError as error:
            print(error, file=sys.stderr)
            return 1
    if args.out is not None:
        from salmonn_node.lab.training.release import write_checkpoint

        console.print(f"written: {write_checkpoint(work, args.out)}")
    return 0
