"""`salmonn eval tiny`: arms of the memory on worlds never trained on, by length of stream and age of evidence."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from salmonn_node.evaluation.arms import DEFAULT_ARM, parse_arms
from salmonn_node.lab.training.eval_sets import ARMS, BASELINES, SETS

if TYPE_CHECKING:
    from rich.table import Table

    from salmonn_node.lab.training.streams import Tokens


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn eval`."""
    parser.add_argument("checkpoint", help="tiny, a folder, or a name as for `salmonn checkpoint get`")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("train_tiny"),
        help="folder of the rendered worlds; missing ones are rendered, half an hour for all (%(default)s)",
    )
    parser.add_argument(
        "--arms",
        default=ARMS,
        help=f"arms of the memory, see docs/world.md, or {', '.join(BASELINES)}, see docs/tiny.md (%(default)s)",
    )
    parser.add_argument("--sets", default="", help=f"sets of streams, of {', '.join(s.name for s in SETS)} (all)")
    parser.add_argument("--plot", type=Path, help="write accuracy against stream length to this SVG file")
    parser.add_argument(
        "--results",
        type=Path,
        help="JSON lines, one for each arm and set; what the same weights did on the same streams is not run again",
    )


def run(args: argparse.Namespace) -> int:
    """Score and print a table; 2 when there is no such set."""
    import torch
    from rich.console import Console

    from salmonn_node.evaluation.equal_bytes import bytes_table
    from salmonn_node.lab.training.eval_plot import write_plot
    from salmonn_node.lab.training.eval_scores import arm_model, fingerprint, score, streams_of
    from salmonn_node.lab.training.result_rows import add_row, read_rows
    from salmonn_node.model.checkpoint import load

    torch.set_num_threads(1)
    console = Console(soft_wrap=True)
    wanted = [s for s in SETS if not args.sets or s.name in args.sets.split(",")]
    unknown = sorted(set(filter(None, args.sets.split(","))) - {s.name for s in SETS})
    if unknown:
        print(f"salmonn eval: there is no set {', '.join(unknown)}; see --help", file=sys.stderr)
        return 2
    arms = [a.strip() for a in args.arms.split(",")]
    done = {(row["set"], row["arm"], row.get("weights")): row for row in read_rows(args.results)}
    kept = [arm for name in arms if name != DEFAULT_ARM and name not in BASELINES for arm in parse_arms(name)]
    reference = load(args.checkpoint)
    console.print(bytes_table(reference.config, kept))
    models = {arm: arm_model(args.checkpoint, arm) for arm in arms}

    def report(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    rows = []
    for chosen in wanted:
        streams: list[Tokens] | None = None
        for arm in arms:
            model = models[arm]
            weights = fingerprint(model)
            row = done.get((chosen.name, arm, weights))
            # A set that has grown is another set, so its older row does not stand.
            if row is None or row.get("settings") != asdict(chosen):
                streams = streams or list(streams_of(chosen, args.work, reference.network, report))
                figures = score(model, streams, chosen, arm, report)
                row = {"set": chosen.name, "arm": arm, "weights": weights, **figures}
                add_row(args.results, row)
            rows.append(row)
            console.print(_line(row), highlight=False)
    console.print(_table(rows))
    if args.plot is not None:
        write_plot(args.plot, rows)
    return 0


def _line(row: dict[str, object]) -> str:
    names = ("n", "answerable", "abstention_f1", "hit", "kept", "answerable_kept", "calibration_error", "s")
    return f"{row['set']} {row['arm']}: " + ", ".join(f"{name} {row[name]}" for name in names)


def _table(rows: list[dict[str, object]]) -> Table:
    from rich.table import Table

    shown = Table(title="answerable accuracy with its 95 % interval")
    arms = list(dict.fromkeys(str(r["arm"]) for r in rows))
    shown.add_column("set")
    for arm in arms:
        shown.add_column(arm)
    for name in dict.fromkeys(str(r["set"]) for r in rows):
        cells = {str(r["arm"]): r for r in rows if r["set"] == name}
        shown.add_row(name, *(_cell(cells.get(arm)) for arm in arms))
    return shown


def _cell(row: dict[str, object] | None) -> str:
    return "" if row is None else f"{row['answerable']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
