"""`salmonn questions`: check a question file, import one from a benchmark, export one as a dataset and read it back."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from salmonn_node.evaluation.dataset_folder import DatasetRow
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
    export = actions.add_parser("export", help="write questions and answers as a folder for Hugging Face datasets")
    export.add_argument("file", type=Path, help="question file")
    export.add_argument("folder", type=Path, help="folder to write, which must not exist")
    export.add_argument(
        "--answers",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder of a replay with answers.jsonl, or of several such; repeatable",
    )
    read = actions.add_parser("import", help="read such a folder back as a question file")
    read.add_argument("folder", type=Path, help="folder of the dataset, or a .parquet file of it")
    read.add_argument("--output", type=Path, required=True, help="question file to write")
    read.add_argument("--answers", type=Path, metavar="DIR", help="folder for answers and pictures (not written)")


def run(args: argparse.Namespace) -> int:
    """Run the command; 0 done, 1 the checked file has bad lines, 2 bad input."""
    from salmonn_node.evaluation.questions import write_questions

    try:
        if args.action == "export":
            return _export(args)
        if args.action == "import":
            return _import(args)
        if args.action == "check":
            return _check(args.file)
        records = _navqa(args) if args.action == "navqa" else _choice(args)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        print(f"salmonn questions: {error}", file=sys.stderr)
        return 2
    print(f"{write_questions(args.output, records)} questions in {args.output}")
    return 0


def _export(args: argparse.Namespace) -> int:
    from salmonn_node.evaluation.dataset_folder import write_dataset
    from salmonn_node.evaluation.questions import read_questions

    rows = list(_answered(read_questions(args.file), args.answers))
    count = write_dataset(args.folder, rows)
    print(f"{count} questions, {sum(row.answered is not None for row in rows)} with answers, in {args.folder}")
    return 0


def _answered(questions: Sequence[QuestionRecord], folders: Sequence[Path]) -> Iterator[DatasetRow]:
    """Each question with its answer and the answer's pictures."""
    from dataclasses import replace

    from salmonn_node.evaluation.answer_file import Answered, read_answers
    from salmonn_node.evaluation.dataset_folder import DatasetRow
    from salmonn_node.replay.job_pictures import with_pictures

    found: dict[str, tuple[Path, Answered]] = {}
    for folder in folders:
        files = [f for f in (folder / "answers.jsonl", *sorted(folder.glob("*/answers.jsonl"))) if f.is_file()]
        if not files:
            raise ValueError(
                f"{folder} has no answers.jsonl, in it or one folder below; name ARM or ARM/BAG of a replay"
            )
        for file in files:
            for answered in read_answers(file):
                if answered.id in found:
                    both = f"{found[answered.id][0]} and {file.parent}"
                    raise ValueError(f"question {answered.id} has two answers, in {both}; name one of these folders")
                found[answered.id] = (file.parent, answered)
    for record in questions:
        if record.id not in found:
            yield DatasetRow(record)
            continue
        place, answered = found[record.id]
        yield DatasetRow(record, replace(answered, answer=with_pictures(place, answered.id, answered.answer)))


def _import(args: argparse.Namespace) -> int:
    from salmonn_node.evaluation.answer_file import write_answers
    from salmonn_node.evaluation.dataset_folder import read_dataset
    from salmonn_node.evaluation.questions import write_questions
    from salmonn_node.replay.job_pictures import save_pictures

    if args.answers and args.answers.exists():
        raise ValueError(f"{args.answers} exists already; name a folder that does not")
    rows = list(read_dataset(args.folder))
    ids = Counter(row.record.id for row in rows)
    twice = next((id for id, count in ids.items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"{args.folder} has {ids[twice]} questions with the id {twice!r}; ids must differ")
    answers = [row.answered for row in rows if row.answered is not None]
    if args.answers:
        args.answers.mkdir(parents=True)
        write_answers(args.answers / "answers.jsonl", answers)
        for answered in answers:
            save_pictures(args.answers, answered)
    print(f"{write_questions(args.output, (row.record for row in rows))} questions in {args.output}")
    if args.answers:
        print(f"{len(answers)} answers in {args.answers}")
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
