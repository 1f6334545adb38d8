"""`salmonn questions`: check a question file, or import one from a benchmark whose data you have."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from salmonn_node.evaluation.questions import QuestionRecord


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser("check", help="name the lines of a question file that are no questions")
    check.add_argument("file", type=Path, help="question file, one JSON object a line")
    navqa = actions.add_parser("navqa", help="import the questions of one NaVQA sequence")
    navqa.add_argument("table", type=Path, help="data.csv of NaVQA")
    navqa.add_argument("stretches", type=Path, help="qa_unfilled.json of the sequence")
    navqa.add_argument("--sequence", type=int, required=True, help="Seq ID of the sequence in the table")
    navqa.add_argument("--bag", type=Path, help="the drive as a bag; position questions need its poses")
    navqa.add_argument("--time-zone", default="America/Los_Angeles", help="time zone of the clock times (%(default)s)")
    navqa.add_argument("--output", type=Path, required=True, help="question file to write")
    choice = actions.add_parser("choice", help="import multiple-choice questions about videos")
    choice.add_argument("rows", type=Path, help="the benchmark's questions, .json or .jsonl")
    choice.add_argument("--layout", choices=["video-mme", "lvbench", "plain"], required=True, help="which benchmark")
    choice.add_argument(
        "--videos", type=Path, required=True, help="folder of the videos (.mp4, .mkv, .webm, .mov, .avi)"
    )
    choice.add_argument("--output", type=Path, required=True, help="question file to write")


def run(args: argparse.Namespace) -> int:
    """Run the command; 0 done, 1 the checked file has bad lines, 2 bad input."""
    from salmonn_node.evaluation.questions import write_questions

    try:
        if args.action == "check":
            return _check(args.file)
        records = _navqa(args) if args.action == "navqa" else _choice(args)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        print(f"salmonn questions: {error}", file=sys.stderr)
        return 2
    print(f"{write_questions(args.output, records)} questions in {args.output}")
    return 0


def _check(path: Path) -> int:
    from salmonn_node.evaluation.questions import QuestionFileError, parse_questions

    kinds: Counter[str] = Counter()
    faults = 0
    with path.open(encoding="utf-8") as lines:
        for item in parse_questions(lines, str(path)):
            if isinstance(item, QuestionFileError):
                print(item)
                faults += 1
            else:
                kinds[item.answer_type] += 1
    print(
        f"{sum(kinds.values())} questions ({', '.join(f'{n} {k}' for k, n in sorted(kinds.items()))}), {faults} faults"
    )
    return 1 if faults else 0


def _navqa(args: argparse.Namespace) -> list[QuestionRecord]:
    from salmonn_node.evaluation.import_navqa import import_navqa
    from salmonn_node.replay.robot_positions import robot_positions

    position_at = robot_positions(args.bag) if args.bag else None
    result = import_navqa(args.table, args.stretches, args.sequence, time_zone=args.time_zone, position_at=position_at)
    for reason, count in sorted(result.skipped.items()):
        print(f"left out {count}: {reason}")
    return result.records


def _choice(args: argparse.Namespace) -> list[QuestionRecord]:
    from salmonn_node.evaluation.import_choice import import_choice, read_rows
    from salmonn_node.replay.video_stream import VideoStream, video_file

    def duration_s(name: str) -> float:
        return VideoStream(video_file(args.videos, name)).duration_s

    return list(import_choice(read_rows(args.rows), args.layout, duration_s))
