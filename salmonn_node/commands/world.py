"""`salmonn world`: make a bag with questions, look at a contact sheet, check questions by eye."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from salmonn_node.lab.world.stream import World


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    make = actions.add_parser("make", help="write a bag, its questions and its event log")
    look = actions.add_parser("look", help="draw a contact sheet with the event log, as PNG")
    check = actions.add_parser("check", help="write an HTML page of questions with what a model would see and hear")
    for sub in (make, look, check):
        sub.add_argument("--seed", type=int, required=True, help="of the world; from 100000 on kept out of training")
        sub.add_argument("--dense", action="store_true", help="many events instead of few")
        sub.add_argument("--output", type=Path, help="what to write (default: world-SEED, .png or .html)")
    make.add_argument("--minutes", type=float, default=30.0, help="length of the stream")
    make.add_argument("--questions", type=int, help="how many (default: 2 a minute, at least 30)")
    make.add_argument("--fps", type=int, default=4, help="pictures a second in the bag")
    make.add_argument("--jpeg-quality", type=int, default=80, help="1 to 100")
    look.add_argument("--minutes", type=float, default=10.0, help="length of the stream")
    look.add_argument("--tiles", type=int, default=24, help="how many pictures")
    check.add_argument("--minutes", type=float, default=10.0, help="length of the stream")
    check.add_argument("--questions", type=int, default=20, help="how many")
    check.add_argument("--width", type=int, default=128, help="of the frames that the model sees, pixels (16:9)")


def run(args: argparse.Namespace) -> int:
    """Run one sub-command; 1 when the world cannot be made here."""
    try:
        return {"make": _make, "look": _look, "check": _check}[args.action](args)
    except (ImportError, RuntimeError, ValueError, FileExistsError) as error:
        print(f"salmonn world: {error}", file=sys.stderr)
        return 1


def _world(args: argparse.Namespace) -> World:
    from salmonn_node.lab.world.stream import World

    return World(args.seed, round(args.minutes * 60), args.dense)


def _make(args: argparse.Namespace) -> int:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from salmonn_node.evaluation.questions import write_questions
    from salmonn_node.lab.world.asking import ask
    from salmonn_node.lab.world.bag import write_bag
    from salmonn_node.lab.world.mount import GROUND_Z_M
    from salmonn_node.lab.world.truth_file import event_log, truth_to_json

    world = _world(args)
    folder = args.output or Path(f"world-{args.seed}")
    folder.mkdir(parents=True)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("s"), TimeRemainingColumn()
    )
    with bar:
        task = bar.add_task(f"world {args.seed}", total=world.seconds)
        truth = write_bag(
            folder / "bag",
            world,
            fps=args.fps,
            jpeg_quality=args.jpeg_quality,
            on_second=lambda second: bar.update(task, completed=second + 1),
        )
    count = args.questions or max(30, round(2 * args.minutes))
    records = ask(truth, args.seed, count, name=f"world-{args.seed}")
    write_questions(folder / "questions.jsonl", records)
    (folder / "truth.json").write_text(truth_to_json(truth) + "\n", encoding="utf-8")
    with (folder / "events.jsonl").open("w", encoding="utf-8") as log:
        for row in event_log(world):
            log.write(json.dumps(row) + "\n")
    size = sum(f.stat().st_size for f in (folder / "bag").iterdir())
    answerable = sum(r.answerable for r in records)
    print(f"{folder}/bag: {world.seconds} s, {size / 1e6:.1f} MB")
    print(f"{folder}/questions.jsonl: {len(records)} questions, {answerable} of them answerable")
    print(f"{folder}/events.jsonl: {len(world.events)} events")
    # Positions of objects come out wrong if a replay takes the floor for what they stand on.
    recording = shlex.join([f"{folder}/bag", "--questions", f"{folder}/questions.jsonl"])
    print(f"Things stand on stands. Next: salmonn replay {recording} --ground-z {GROUND_Z_M:g}")
    return 0


def _look(args: argparse.Namespace) -> int:
    import cv2

    from salmonn_node.lab.world.sheet import contact_sheet

    path = args.output or Path(f"world-{args.seed}.png")
    sheet = contact_sheet(_world(args), args.tiles)
    if not cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
        raise ValueError(f"cannot write {path}: the name must end in .png or .jpg and its folder exist")
    print(path)
    return 0


def _check(args: argparse.Namespace) -> int:
    from salmonn_node.lab.world.page import check_page

    path = args.output or Path(f"world-{args.seed}.html")
    path.write_text(check_page(_world(args), args.questions, args.width), encoding="utf-8")
    print(path)
    return 0
