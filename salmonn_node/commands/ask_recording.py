"""`salmonn ask --bag BAG "question"`: questions to a recording, without a question file; its memory is kept."""

from __future__ import annotations

import argparse
import json
import math
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from salmonn_node.commands.answer_text import describe, exit_status, plain_values
from salmonn_node.commands.recording_flags import add_recording_flags, settings_of
from salmonn_node.stream.answers import AnswerType, Question

if TYPE_CHECKING:
    from salmonn_node.replay.recorded_memory import RecordedMemory

INTERRUPTED = 130
PROMPT = "question> "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments for a recording."""
    group = parser.add_argument_group("a recording instead of a node", "--after and --before then count from its start")
    add = group.add_argument
    add("--bag", type=Path, metavar="BAG", help="rosbag2 directory, .mcap, .db3, ROS 1 .bag or video to ask")
    add("--output", type=Path, default=Path("ask_output"), metavar="DIR", help="where pictures go (%(default)s)")
    add("--explain", type=Path, metavar="FILE", help="with --reader server: write what was sent as an HTML page")
    add("--fresh", action="store_true", help="take the recording in anew, although its memory is in the cache")
    add_recording_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Take the recording in, or its memory from the cache, and ask; the worst status of all questions."""
    from salmonn_node.storage.snapshot import SnapshotError

    try:
        memory = _remember(args)
    except (OSError, ValueError, SnapshotError) as error:
        print(f"salmonn ask: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("salmonn ask: interrupted; nothing was kept", file=sys.stderr)
        return INTERRUPTED
    worst = 0
    try:
        _introduce(memory)
        for text in args.text or _typed():
            worst = max(worst, _ask(memory, text, args))
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        memory.close()
    return worst


def _remember(args: argparse.Namespace) -> RecordedMemory:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from salmonn_node.replay.recorded_memory import remember

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
        bar = bars.add_task(f"taking in {args.bag}", total=None)

        def show(done_s: float, duration_s: float) -> None:
            bars.update(bar, completed=done_s, total=duration_s)

        return remember(args.bag, settings_of(args), fresh=args.fresh, on_progress=show)


def _introduce(memory: RecordedMemory) -> None:
    """Say on stderr what was taken in and what is being asked."""
    checkpoint, status = memory.observer.model.checkpoint, memory.observer.status()
    lines = [
        f"{'taken in' if memory.made else 'remembered from before'}: {status.frames} frames, {status.audio_s:.0f} s of "
        f"sound, {status.poses} poses; {sum(status.tokens + status.waiting_tokens)} tokens in memory ({memory.folder})",
        f"asked: {checkpoint.name}" + ("" if checkpoint.trained else ", untrained weights: answers mean nothing"),
        *([memory.answerer.server.client.settings.where] if memory.answerer.server is not None else []),
        *checkpoint.missing,
        *memory.notes,
    ]
    for line in lines:
        print(f"# {line}", file=sys.stderr)


def _typed() -> Iterator[str]:
    """Questions from the terminal or a pipe, one a line, until its end."""
    while True:
        try:
            text = input(PROMPT if sys.stdin.isatty() else "")
        except EOFError:
            return
        if text.strip():
            yield text.strip()


def _ask(memory: RecordedMemory, text: str, args: argparse.Namespace) -> int:
    """One question; times are seconds since the recording's start."""
    from salmonn_node.replay.recorded_memory import save_pictures
    from salmonn_node.replay.server import caption_before, write_page

    start_ns = memory.start_ns
    question = Question(
        text=text,
        answer_type=AnswerType[args.type.upper()],
        choices=tuple(args.choice),
        after_ns=start_ns + args.after if args.after else 0,
        before_ns=start_ns + args.before if args.before else 0,
        sources=tuple(args.source),
        target_frame=args.frame,
        want_thumbnails=True,
    )
    caption_before(memory.observer, memory.answerer, args.captions)()
    answer = memory.answerer.ask(question, deadline=math.inf, cancel=threading.Event())
    if args.explain is not None:
        write_page(args.explain, text, answer, memory.answerer)
    pictures = save_pictures(args.output, text, [piece.thumbnail for piece in answer.evidence])
    if args.json:
        files = [None if path is None else str(path) for path in pictures]
        print(json.dumps({"question": text, "answer": plain_values(answer), "pictures": files}, indent=2))
    else:
        print(f"{text}\n{describe(answer, start_ns, pictures)}\n", flush=True)
    return exit_status(answer)
