"""`salmonn replay`: bags through the memory offline, questions at their stamps, scores and a report."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from salmonn_node.commands.recording_flags import add_recording_flags, settings_of

if TYPE_CHECKING:
    from rich.console import Console

    from salmonn_node.replay.job import Job
    from salmonn_node.replay.runner import Progress as ReplayProgress
    from salmonn_node.replay.summary import Finished

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
    add("--jobs", type=int, default=1, metavar="N", help="bags at once, one process each (%(default)s)")
    add("--ray", default="", metavar="ADDRESS", help="spread the bags over this Ray cluster")
    add("--live", action="store_true", help="replay through a real node and compare its answers with the offline ones")
    add("--rate", type=float, default=1.0, metavar="X", help="with --live: times as fast as recorded (%(default)s)")
    add(
        "--mcap", type=Path, metavar="FILE", help="also write the bag with answers and evidence on its timeline (.mcap)"
    )
    add("--explain", action="store_true", help="with --reader server: write what was sent for each question as a page")
    add("--min-accuracy", type=float, default=None, metavar="SHARE", help="exit with 1 below this accuracy, 0..1")
    add_recording_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; 0 done, 1 below --min-accuracy or live and offline differ, 2 bad input, 130 interrupted.

    A recording that cannot be replayed, or of which nothing was taken in, is bad input; the others are replayed first.
    """
    from rich.console import Console

    console = Console()
    if args.min_accuracy is not None and not 0 <= args.min_accuracy <= 1:
        return _refuse(console, f"--min-accuracy: expected 0..1, got {args.min_accuracy}")
    if args.rate <= 0:
        return _refuse(console, f"--rate: expected a positive number, got {args.rate}")
    from salmonn_node.evaluation.arms import DEFAULT_ARM, arm_names
    from salmonn_node.evaluation.questions import usable_questions

    try:
        arms = arm_names(args.arms)
        questions, faults = usable_questions(args.questions)
        # What follows loads the network's libraries: bad arguments were refused before.
        from salmonn_node.replay.jobs import jobs_of

        settings = replace(settings_of(args), explain=args.explain)
        jobs = jobs_of(args.recordings, questions, settings, arms, args.output)
        if args.live and (args.start_offset or args.playback_duration or args.topics or args.exclude_topics):
            raise ValueError("--live plays a whole bag; cut the part out first: salmonn bag cut")
        if args.live and settings.server.outside:
            raise ValueError("--live asks the node's own network; give a server to the node itself: docs/server.md")
        if args.mcap:
            jobs = _with_mcap(jobs, args)
    except (OSError, ValueError) as error:
        return _refuse(console, str(error))
    for fault in faults:
        console.print(f"[yellow]left out:[/] {fault}", highlight=False, soft_wrap=True)
    if args.live:
        from salmonn_node.live.compare import run_live

        return run_live(jobs, console, args.rate)
    if len(set(arms) - {DEFAULT_ARM}) > 1:
        from rich.markdown import Markdown

        from salmonn_node.evaluation.equal_bytes import arms_bytes

        console.print(Markdown(arms_bytes(args.checkpoint, arms)))
    stop = _StopFlag()
    finished = _run_jobs(args, jobs, console, stop)
    if stop.asked:
        console.print("Interrupted: the answers so far are saved; the same command goes on from there.")
        return INTERRUPTED
    from salmonn_node.commands.replay_tables import recordings_table, scores_table
    from salmonn_node.replay.summary import warnings, write_report, write_scores

    scores = write_scores(args.output, finished)
    failed = [f for f in finished if f.result.error]
    ran = {f.job.settings.arm for f in finished if not f.result.error}
    console.print(scores_table(scores, ran))
    if len(finished) > len(ran):
        console.print(recordings_table(finished))
    for line in warnings(finished):
        console.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)
    for item in failed:
        name = f"{item.job.name} ({item.job.settings.arm})"
        console.print(f"[red]{name}[/] was not replayed: {item.result.error}", highlight=False, soft_wrap=True)
    if args.mcap and args.mcap.exists():
        console.print(f"Timeline: {args.mcap}", highlight=False)
    try:
        title = f"Replay of {', '.join(dict.fromkeys(job.name for job in jobs))}"
        write_report(args.output, finished, scores, title)
        console.print(f"Report: {args.output / 'report.html'}", highlight=False)
    except RuntimeError as error:
        said = f"No report.html: {error}. Scores are in {args.output / 'scores.json'}"
        console.print(said, highlight=False, markup=False, soft_wrap=True)
    lowest = min(one["all"]["accuracy"] for one in scores.values())
    if args.min_accuracy is not None and not lowest >= args.min_accuracy:
        console.print(f"[red]accuracy {lowest:.3f} is below {args.min_accuracy}[/]")
        return 1
    return 2 if failed else 0


def _with_mcap(jobs: Sequence[Job], args: argparse.Namespace) -> list[Job]:
    """The one job, which also writes --mcap; raises ValueError or OSError when it could not."""
    from dataclasses import replace

    from salmonn_node.replay.evaluation_mcap import check_target

    if len(jobs) != 1 or args.live:
        found = "a live replay" if args.live else f"{len(jobs)}: each recording with each of --arms is one"
        raise ValueError(f"--mcap holds one evaluation of one bag, got {found}; run the command once for each")
    check_target(args.mcap, jobs[0].recording, jobs[0].questions)
    return [replace(jobs[0], mcap=args.mcap)]


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
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from salmonn_node.replay.fleet import run_here, run_processes, run_ray
    from salmonn_node.replay.progress_line import ProgressLine

    lines = not console.is_terminal  # a log or a pipe shows no bars
    line = ProgressLine(partial(print, flush=True))
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeRemainingColumn(),
    )
    previous = signal.signal(signal.SIGINT, stop.on_signal)
    try:
        with Progress(*columns, console=console, disable=lines) as bars:
            if args.ray or args.jobs > 1:
                bar = bars.add_task("bags", total=len(jobs), detail="")
                source = run_ray(jobs, args.ray) if args.ray else run_processes(jobs, args.jobs, lines=lines)
                finished = []
                for item in source:
                    finished.append(item)
                    bars.advance(bar)
                    if lines:
                        print(
                            f"{len(finished)} of {len(jobs)} done: {item.job.name} ({item.job.settings.arm})",
                            flush=True,
                        )
                order = {id(job): number for number, job in enumerate(jobs)}
                return sorted(finished, key=lambda item: order[id(item.job)])
            tasks = {id(job): bars.add_task(f"{job.name} ({job.settings.arm})", total=None, detail="") for job in jobs}

            def show(job: Job, progress: ReplayProgress, duration_s: float) -> None:
                if lines:
                    line(job, progress, duration_s)
                detail = (
                    f"{progress.stream_s:.0f} s at {progress.speed:.0f}x real time, "
                    f"{progress.answered} of {len(job.questions)} answered, {progress.tokens} tokens kept"
                )
                bars.update(tasks[id(job)], total=duration_s, completed=progress.stream_s, detail=detail)

            return list(run_here(jobs, show, stop))
    finally:
        signal.signal(signal.SIGINT, previous)


def _refuse(console: Console, reason: str) -> int:
    console.print("[red]salmonn replay:[/] ", end="")
    console.print(reason, highlight=False, markup=False, soft_wrap=True)
    return 2
