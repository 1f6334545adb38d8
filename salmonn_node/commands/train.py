"""`salmonn train tiny` and `salmonn train standin`: recipes of checkpoints, stage by stage, resumable."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

RECIPES = ("tiny", "standin")
FIRST_COLUMNS = ("step", "s", "loss")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn train`."""
    parser.add_argument(
        "checkpoint",
        choices=RECIPES,
        help="tiny: the bundled network. standin: that network without its evidence head, trained to answer in words",
    )
    parser.add_argument("--work", type=Path, help="folder for data, states and logs (train_tiny, train_standin)")
    parser.add_argument("--stage", default="all", help="one stage by name, or all that are not done yet (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of weights and order of data (%(default)s)")
    parser.add_argument(
        "--rehearsal", action="store_true", help="run all stages for a few steps on little data, in a folder of its own"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="standin: steps of its training (600)")
    parser.add_argument("--out", type=Path, help="folder to write the checkpoint to when all stages are done")


def run(args: argparse.Namespace) -> int:
    """Train; 1 when a stage misses its gate, 2 when there is no such stage."""
    import torch
    from rich.console import Console

    from salmonn_node.lab.training import release, stages, standin
    from salmonn_node.lab.training.work import Work

    if args.steps is not None and (args.checkpoint != "standin" or args.steps < 1):
        print(f"salmonn train: --steps is for standin, and at least 1; got {args.steps}", file=sys.stderr)
        return 2
    recipe = standin.STAGES if args.checkpoint == "standin" else stages.STAGES
    if args.stage not in (*recipe, "all"):
        print(f"salmonn train: expected --stage all, {', '.join(recipe)}; got {args.stage!r}", file=sys.stderr)
        return 2
    console = Console(soft_wrap=True)
    torch.set_num_threads(1)  # two threads wait for each other more than they gain at these sizes
    folder = args.work or Path(f"train_{args.checkpoint}")
    folder = folder / "rehearsal" if args.rehearsal else folder
    if args.checkpoint == "standin":
        work: Work = standin.StandinWork(folder, args.seed, args.rehearsal, args.steps)
    else:
        work = Work(folder, args.seed, args.rehearsal)
    for name, stage in recipe.items():
        if args.stage not in ("all", name):
            continue
        console.rule(f"{name}: {(stage.__doc__ or '').splitlines()[0]}")
        try:
            for line in stage(work):
                figures = [k for k in FIRST_COLUMNS if k in line] + [k for k in line if k not in FIRST_COLUMNS]
                console.print("  ".join(f"{key} {line[key]:g}" for key in figures), highlight=False)
        except stages.GateError as error:
            print(error, file=sys.stderr)
            return 1
    if args.out is not None:
        write = standin.write_checkpoint if args.checkpoint == "standin" else release.write_checkpoint
        console.print(f"written: {write(work, args.out)}")
    return 0
