"""`salmonn calibrate`: fit confidences and abstention to your own questions about your own recording."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from salmonn_node.commands.recording_flags import add_recording_flags, settings_of

if TYPE_CHECKING:
    from rich.table import Table

    from salmonn_node.answering.confidence import Calibration
    from salmonn_node.evaluation.calibration_fit import JudgedAnswer, Quality
    from salmonn_node.replay.job import Job
    from salmonn_node.replay.runner import Progress as StreamProgress

FEWEST = 20
SHOWN = 6  # made questions that are printed
ROWS = (
    ("abstention F1", "f1"),
    ("answerable questions answered right", "right"),
    ("wrong among the answers given", "wrong"),
    ("calibration error of confidences", "error"),
    ("strongest evidence lies on the true one", "hit"),
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
    from salmonn_node.replay.job import Job

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
        settings, questions = settings_of(args), [*((r, r.id) for r in records), *made]
        with _progress(Job(args.bag, tuple(r for r, _ in questions), settings, Path())) as show:
            asked, base = asked_of(args.bag, questions, settings, show)
        before, after = before_and_after(asked, base)
        rule = not after.f1 < before.f1
        if not rule:
            try:
                before, after = before_and_after(asked, base, rule=False)
            except ValueError:  # the default rule leaves too few answers to fit temperatures on
                rule = True
        made_on = f"{len(asked)} questions about {args.bag.name}"
        calibration = fitted(asked, base, rule).model_copy(update={"made_on": made_on})
        path = args.out or own_calibration(base.checkpoint)
        write_whole(path, calibration.model_dump_json(indent=1, exclude_defaults=True) + "\n")
    except (OSError, ValueError) as error:
        print(f"salmonn calibrate: {error}", file=sys.stderr)
        return 2
    console.print(_table(before, after, asked, len(made)))
    if not rule:
        console.print("abstention: the rule without a calibration stays; a fitted one was worse", highlight=False)
    for line in (_heads(calibration, asked), f"written: {path}"):
        console.print(line, highlight=False)
    with contextlib.suppress(ValueError):  # without a home there is no such place
        own = own_calibration(base.checkpoint)
        console.print(
            "It is used from now on wherever these weights run." if path == own else f"To use it, put it at {own}",
            highlight=False,
        )
    return 0


@contextlib.contextmanager
def _progress(job: Job) -> Iterator[Callable[[StreamProgress, float], None]]:
    """Show how far the questions are: a bar on a terminal, else a line now and then."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from salmonn_node.replay.progress_line import ProgressLine

    console = Console(stderr=True)
    line = ProgressLine(lambda text: print(f"# {text}", file=sys.stderr, flush=True))
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
        bar = bars.add_task("")

        def show(progress: StreamProgress, duration_s: float) -> None:
            told = f"{job.name}: {progress.answered} of {len(job.questions)} questions asked"
            bars.update(bar, description=told, completed=progress.stream_s, total=duration_s)
            if not console.is_terminal:
                line(job, progress, duration_s)

        yield show


def _refuse_shared(out: Path | None) -> None:
    """Raise ValueError if a path lies in the hub's cache, which others share."""
    if out is None:
        return
    from huggingface_hub.constants import HF_HUB_CACHE

    if out.resolve().is_relative_to(Path(HF_HUB_CACHE).resolve()):
        raise ValueError(f"--out {out} lies in the hub's cache, which others share; leave --out away")


def _table(before: Quality, after: Quality, asked: Sequence[JudgedAnswer], made: int) -> Table:
    from rich.table import Table

    absent = sum(not a.record.answerable for a in asked)
    table = Table(
        title=f"{len(asked)} questions, {absent} of them unanswerable ({made} of these were made)",
        caption="after: each question is judged by a calibration that was fitted without it",
    )
    table.add_column("")
    for name in ("before", "after"):
        table.add_column(name, justify="right")
    for name, field in ROWS:
        values = [getattr(quality, field) for quality in (before, after)]
        if not all(math.isnan(value) for value in values):
            table.add_row(name, *("-" if math.isnan(value) else f"{value:.2f}" for value in values))
    return table


def _heads(calibration: Calibration, asked: Sequence[JudgedAnswer]) -> str:
    """What was decided about attention heads, in words."""
    from salmonn_node.evaluation.head_choice import FEWEST as FEWEST_OF_HEADS

    located = [a.located for a in asked if a.located is not None]
    if not located:
        return "attention heads: not tried; that takes questions with `evidence` and a network without an evidence head"
    layers, heads = located[0].attention.shape[:2]
    if calibration.heads:
        return f"attention heads: the best {len(calibration.heads)} of {layers * heads} propose the evidence"
    few = len(located) < FEWEST_OF_HEADS
    why = "too few to choose on" if few else "no choice was clearly better"
    return f"attention heads: all {layers * heads} stay; {len(located)} questions with known evidence, {why}"
