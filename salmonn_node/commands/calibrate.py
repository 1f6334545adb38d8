"""`salmonn calibrate`: fit confidences and abstention to your own questions about your own recording."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from salmonn_node.commands.recording_flags import add_recording_flags, settings_of

if TYPE_CHECKING:
    from rich.table import Table

    from salmonn_node.evaluation.calibration_fit import JudgedAnswer, Quality

FEWEST = 20
SHOWN = 6  # made questions that are printed
ROWS = (
    ("abstention F1", "f1"),
    ("answerable questions answered right", "right"),
    ("wrong among the answers given", "wrong"),
    ("calibration error of confidences", "error"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn calibrate`."""
    parser.add_argument("--bag", type=Path, required=True, metavar="BAG", help="recording, as for `salmonn ask --bag`")
    parser.add_argument(
        "--questions", type=Path, required=True, metavar="FILE",
        help="30 to 100 questions with their answers, one JSON object a line (docs/replay.md)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, metavar="FILE",
        help="where it goes (~/.local/share/salmonn_node/calibrations/ID.json, which is used from then on)",
    )  # fmt: skip
    parser.add_argument("--no-exchange", action="store_true", help="make no unanswerable questions of answerable ones")
    add_recording_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Ask, fit, cross-validate, write; 2 when something cannot be used."""
    from rich.console import Console

    from salmonn_node.evaluation.calibration_fit import before_and_after, fitted
    from salmonn_node.evaluation.exchanged import exchanged
    from salmonn_node.evaluation.questions import usable_questions
    from salmonn_node.model.own_calibration import own_calibration, write_whole
    from salmonn_node.replay.calibration_run import asked_of

    console = Console(soft_wrap=True)
    try:
        _refuse_shared(args.out)
        records, faults = usable_questions(args.questions)
        if len(records) < FEWEST:
            raise ValueError(f"{args.questions}: expected {FEWEST} questions or more, got {len(records)}")
        made = [] if args.no_exchange else exchanged(records)
        for fault in faults:
            print(f"# left out: {fault}", file=sys.stderr)
        for record, _ in made[:SHOWN]:
            print(f"# made, taken as unanswerable: {record.text}", file=sys.stderr)
        if len(made) > SHOWN:
            print(f"# and {len(made) - SHOWN} more", file=sys.stderr)
        asked, base = asked_of(args.bag, [*((r, r.id) for r in records), *made], settings_of(args))
        before, after = before_and_after(asked, base)
        where = args.bag.name
        calibration = fitted(asked, base).model_copy(update={"made_on": f"{len(asked)} questions about {where}"})
        path = args.out or own_calibration(base.checkpoint)
        write_whole(path, calibration.model_dump_json(indent=1, exclude_defaults=True) + "\n")
    except (OSError, ValueError) as error:
        print(f"salmonn calibrate: {error}", file=sys.stderr)
        return 2
    console.print(_table(before, after, asked))
    console.print(f"written: {path}", highlight=False)
    with contextlib.suppress(ValueError):  # without a home there is no such place
        if args.out is not None:
            console.print(f"To use it, put it at {own_calibration(base.checkpoint)}", highlight=False)
    return 0


def _refuse_shared(out: Path | None) -> None:
    """Raise ValueError if a path lies in the hub's cache, which others share."""
    if out is None:
        return
    from huggingface_hub.constants import HF_HUB_CACHE

    if out.resolve().is_relative_to(Path(HF_HUB_CACHE).resolve()):
        raise ValueError(f"--out {out} lies in the hub's cache, which others share; leave --out away")


def _table(before: Quality, after: Quality, asked: Sequence[JudgedAnswer]) -> Table:
    from rich.table import Table

    absent = sum(not a.record.answerable for a in asked)
    table = Table(title=f"{len(asked)} questions, {absent} unanswerable; after: cross-validated")
    for name in ("", "before", "after"):
        table.add_column(name)
    for name, field in ROWS:
        table.add_row(name, *(f"{getattr(quality, field):.2f}" for quality in (before, after)))
    return table
