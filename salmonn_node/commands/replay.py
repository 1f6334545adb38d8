"""`salmonn replay`: bags through the memory offline, questions at their stamps, scores and a report."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from salmonn_node.commands.network_flags import add_network_flags, network_of
from salmonn_node.evaluation.questions import QuestionFileError, QuestionRecord, parse_questions
from salmonn_node.replay.fleet import run_here, run_processes, run_ray
from salmonn_node.replay.job import Job, JobSettings
from salmonn_node.replay.network import DEFAULT_ARM, arm_names, arms_bytes
from salmonn_node.replay.summary import Finished, write_report
from salmonn_node.stream.transforms import mounted

INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add = parser.add_argument
    add("recordings", nargs="+", type=Path, metavar="BAG", help="rosbag2 directory, .mcap, .db3, ROS 1 .bag or video")
    add("--questions", type=Path, required=True, metavar="FILE", help="question file, one JSON object a line")
    add("--output", type=Path, default=Path("replay_output"), metavar="DIR", help="where results go (%(default)s)")
    add(
        "--arms",
        default="default",
        help="how the memory is kept, e.g. default,fifo,place+hf+recall, or main, or all (%(default)s)",
    )
    add("--camera", action="append", default=[], metavar="TOPIC", help="camera topic, repeatable (found by type)")
    add("--microphone", action="append", default=[], metavar="TOPIC", help="sound topic, repeatable (found by type)")
    add("--pose", default=None, metavar="TOPIC", help="topic of the robot's pose, '' for none (found by type)")
    add("--map-id", default="", help="name of the map that the poses refer to")
    add(
        "--mount",
        action="append",
        default=[],
        metavar="CAMERA=X,Y,Z,ROLL,PITCH,YAW",
        help="a camera's optical frame in base_link (m, rad), repeatable (from the bag's tf)",
    )
    add("--ground-z", type=float, default=0.0, metavar="M", help="height of what objects stand on (%(default)s)")
    add("--frame-rate", type=float, default=1.0, metavar="HZ", help="frames looked at per second (%(default)s)")
    add("--jobs", type=int, default=1, metavar="N", help="bags at once, one process each (%(default)s)")
    add("--ray", default="", metavar="ADDRESS", help="spread the bags over this Ray cluster")
    add("--live", action="store_true", help="replay through a real node and compare its answers with the offline ones")
    add("--rate", type=float, default=1.0, metavar="X", help="with --live: times as fast as recorded (%(default)s)")
    add("--min-accuracy", type=float, default=None, metavar="SHARE", help="exit with 1 below this accuracy, 0..1")
    add_network_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; 0 done, 1 below --min-accuracy or live and offline differ, 2 bad input, 130 interrupted."""
    console = Console()
    if args.min_accuracy is not None and not 0 <= args.min_accuracy <= 1:
        return _refuse(console, f"--min-accuracy: expected 0..1, got {args.min_accuracy}")
    if args.rate <= 0:
        return _refuse(console, f"--rate: expected a positive number, got {args.rate}")
    try:
        questions, faults = load_questions(args.questions)
        jobs = make_jobs(args, questions)
    except (OSError, ValueError) as error:
        return _refuse(console, str(error))
    for fault in faults:
        console.print(f"[yellow]left out:[/] {fault}", highlight=False, soft_wrap=True)
    if args.live:
        from salmonn_node.live.compare import run_live

        return run_live(jobs, console, args.rate)
    if len({job.settings.arm for job in jobs} - {DEFAULT_ARM}) > 1:
        console.print(Markdown(arms_bytes(args.checkpoint, [job.settings.arm for job in jobs])))
    stop = _StopFlag()
    finished = _run_jobs(args, jobs, console, stop)
    if stop.asked:
        console.print("Interrupted: the answers so far are saved; the same command goes on from there.")
        return INTERRUPTED
    try:
        arms = write_report(args.output, finished, f"Replay of {', '.join(dict.fromkeys(j.name for j in jobs))}")
    except RuntimeError as error:
        return _refuse(console, str(error))
    failed = [f for f in finished if f.result.error]
    ran = {f.job.settings.arm for f in finished if not f.result.error}
    _print_scores(console, arms, ran)
    for item in failed:
        name = f"{item.job.name} ({item.job.settings.arm})"
        console.print(f"[red]{name}[/] was not replayed: {item.result.error}", highlight=False)
    console.print(f"Report: {args.output / 'report.html'}", highlight=False)
    lowest = min(scores["all"]["accuracy"] for scores in arms.values())
    if args.min_accuracy is not None and not lowest >= args.min_accuracy:
        console.print(f"[red]accuracy {lowest:.3f} is below {args.min_accuracy}[/]")
        return 1
    return 2 if len(failed) == len(finished) else 0


def load_questions(path: Path) -> tuple[list[QuestionRecord], list[str]]:
    """The questions of a file and, for each line that is none, why not.

    Raises:
        OSError: the file cannot be read.
        ValueError: not a single line is a question.
    """
    questions, faults = [], []
    with path.open(encoding="utf-8") as lines:
        for item in parse_questions(lines, str(path)):
            if isinstance(item, QuestionFileError):
                faults.append(str(item))
            else:
                questions.append(item)
    if not questions:
        raise ValueError(f"{path} holds no question" + (f"; the first fault: {faults[0]}" if faults else ""))
    return questions, faults


def _mount(text: str) -> tuple[str, tuple[float, ...]]:
    camera, _, numbers = text.partition("=")
    try:
        values = tuple(float(n) for n in numbers.split(","))
        mounted("base_link", camera, values)
    except ValueError:
        raise ValueError(f"--mount: expected CAMERA=X,Y,Z,ROLL,PITCH,YAW, got {text!r}") from None
    return camera, values


def make_jobs(args: argparse.Namespace, questions: Sequence[QuestionRecord]) -> list[Job]:
    """A job for each arm and recording; a question without a stream belongs to every recording.

    Raises:
        ValueError: unknown arm, two recordings of one name, or a question whose stream is none of the recordings.
    """
    arms = arm_names(args.arms)
    mounts = tuple(_mount(text) for text in args.mount)
    names = [path.stem if path.is_file() else path.name for path in args.recordings]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two recordings are named {twice[0]}: results are kept by name")
    lost = sorted({q.stream for q in questions if q.stream and q.stream not in names})
    if lost and len(names) == 1 and len(lost) == 1 and all(q.stream in ("", lost[0]) for q in questions):
        lost = []  # one bag under another name than the one its questions were made with
    if lost:
        raise ValueError(f"questions ask about {', '.join(lost)}, which is none of the recordings: {', '.join(names)}")
    jobs = []
    for arm in arms:
        settings = JobSettings(
            network=network_of(args),
            arm=arm,
            cameras=tuple(args.camera),
            microphones=tuple(args.microphone),
            pose=args.pose,
            map_id=args.map_id,
            frame_rate_hz=args.frame_rate,
            mounts=mounts,
            ground_z_m=args.ground_z,
        )
        for name, path in zip(names, args.recordings, strict=True):
            own = tuple(q for q in questions if len(names) == 1 or q.stream in ("", name))
            jobs.append(Job(path, own, settings, args.output / arm / name))
    return jobs


class _StopFlag:
    """Set by the first Ctrl-C; a second one ends the program as usual."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        return self.asked

    def on_signal(self, *_: object) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _run_jobs(args: argparse.Namespace, jobs: Sequence[Job], console: Console, stop: _StopFlag) -> list[Finished]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeRemainingColumn(),
    )
    previous = signal.signal(signal.SIGINT, stop.on_signal)
    try:
        with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as bars:
            if args.ray or args.jobs > 1:
                bar = bars.add_task("bags", total=len(jobs), detail="")
                source = run_ray(jobs, args.ray) if args.ray else run_processes(jobs, args.jobs)
                finished = []
                for item in source:
                    finished.append(item)
                    bars.advance(bar)
                order = {id(job): number for number, job in enumerate(jobs)}
                return sorted(finished, key=lambda item: order[id(item.job)])
            tasks = {id(job): bars.add_task(f"{job.name} ({job.settings.arm})", total=None, detail="") for job in jobs}

            def show(job: Job, progress, duration_s: float) -> None:
                detail = (
                    f"{progress.stream_s:.0f} s at {progress.speed:.0f}x real time, "
                    f"{progress.answered} of {len(job.questions)} answered, {progress.tokens} tokens kept"
                )
                bars.update(tasks[id(job)], total=duration_s, completed=progress.stream_s, detail=detail)

            return list(run_here(jobs, show, stop))
    finally:
        signal.signal(signal.SIGINT, previous)


def _print_scores(console: Console, arms: dict, ran: set[str]) -> None:
    table = Table(title="Scores")
    for column in ("arm", "questions", "accuracy", "95 % interval", "evidence hit", "abstention F1"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for arm, scores in arms.items():
        row = scores["all"]
        if arm not in ran:
            table.add_row(arm, str(row["n"]), "not run", "", "", "")
            continue
        table.add_row(
            arm,
            str(row["n"]),
            f"{row['accuracy']:.3f}",
            f"{row['low']:.3f} to {row['high']:.3f}",
            f"{row['evidence_hit']:.3f}",
            f"{scores['abstention']['f1']:.3f}",
        )
    console.print(table)


def _refuse(console: Console, reason: str) -> int:
    console.print(f"[red]salmonn replay:[/] {reason}", highlight=False, soft_wrap=True)
    return 2
