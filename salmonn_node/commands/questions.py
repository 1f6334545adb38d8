"""`salmonn questions`: check a question file, or import one from a benchmark whose data you have."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from salmonn_node.evaluation.import_choice import import_choice, read_rows
from salmonn_node.evaluation.import_navqa import import_navqa
from salmonn_node.evaluation.questions import QuestionFileError, QuestionRecord, parse_questions, write_questions
from salmonn_node.replay.bag_stream import BagStream
from salmonn_node.replay.video_stream import VideoStream
from salmonn_node.stream.observations import Pose
from salmonn_node.stream.pose_track import PoseTrack

_VIDEO_ENDINGS = (".mp4", ".mkv", ".webm", ".mov", ".avi")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser("check", help="say which lines of a question file are not questions")
    check.add_argument("file", type=Path)
    navqa = actions.add_parser("navqa", help="import NaVQA's questions of one sequence")
    navqa.add_argument("table", type=Path, help="data.csv")
    navqa.add_argument("stretches", type=Path, help="the sequence's qa_unfilled.json")
    navqa.add_argument("--sequence", type=int, required=True, help="the table's 'Seq ID'")
    navqa.add_argument("--bag", type=Path, help="the drive as a bag: its poses answer the position questions")
    navqa.add_argument("--time-zone", default="America/Los_Angeles", help="zone of the clock times (%(default)s)")
    navqa.add_argument("--output", type=Path, required=True)
    choice = actions.add_parser("choice", help="import multiple-choice questions about videos")
    choice.add_argument("rows", type=Path, help=".json or .jsonl")
    choice.add_argument("--layout", choices=["video-mme", "lvbench", "plain"], required=True)
    choice.add_argument("--videos", type=Path, required=True, help="folder with <video name>.mp4 (or mkv, webm...)")
    choice.add_argument("--output", type=Path, required=True)


def run(args: argparse.Namespace) -> int:
    """Run the command; 0 done, 1 the checked file has bad lines, 2 bad input."""
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
    position_at = None
    if args.bag:
        track = PoseTrack(capacity=10_000_000)
        with BagStream(args.bag) as bag:
            for _, observation in bag:
                if isinstance(observation, Pose):
                    track.add(observation)

        def position_at(stamp_ns: int) -> tuple[float, float, float] | None:
            pose = track.at(stamp_ns)
            return None if pose is None else tuple(float(v) for v in pose.position)  # type: ignore[return-value]

    result = import_navqa(args.table, args.stretches, args.sequence, time_zone=args.time_zone, position_at=position_at)
    for reason, count in sorted(result.skipped.items()):
        print(f"left out {count}: {reason}")
    return result.records


def _choice(args: argparse.Namespace) -> list[QuestionRecord]:
    def duration_s(name: str) -> float:
        path = next((p for end in _VIDEO_ENDINGS if (p := args.videos / (name + end)).is_file()), None)
        if path is None or Path(name).name != name:
            raise ValueError(f"no video {name!r} in {args.videos}")
        return VideoStream(path).duration_s

    return list(import_choice(read_rows(args.rows), args.layout, duration_s))
