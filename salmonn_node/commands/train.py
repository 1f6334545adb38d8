"""`salmonn train tiny`: the recipe of the tiny checkpoint, stage by stage, resumable."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

FIRST_COLUMNS = ("step", "s", "loss")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn train`."""
    parser.add_argument("checkpoint", choices=["tiny"], help="what to train")
    parser.add_argument(
        "--work", type=Path, default=Path("train_tiny"), help="folder for data, states and logs (%(default)s)"
    )
    parser.add_argument("--stage", default="all", help="one stage by name, or all that are not done yet (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of weights and order of data (%(default)s)")
    parser.add_argument(
        "--rehearsal", action="store_true", help="run all stages for a few steps on little data, in a folder of its own"
    )
    parser.add_argument("--out", type=Path, help="folder to write the checkpoint to when all stages are done")


def run(args: argparse.Namespace) -> int:
    """Train; 1 when a stage misses its gate, 2 when there is no such stage."""
    import torch
    from rich.console import Console

    from salmonn_node.lab.training.stages import STAGES, GateError
    from salmonn_node.lab.training.work import Work

    if args.stage not in (*STAGES, "all"):
        print(f"salmonn train: expected --stage all, {', '.join(STAGES)}; got {args.stage!r}", file=sys.stderr)
        return 2
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
