"""`salmonn bag`: show what a bag holds, play it into a running node, make a small one, cut a piece out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from salmonn_node.live.player_arguments import add_play_arguments, add_stretch_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-commands."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    info = commands.add_parser("info", help="show the topics of a bag and which of them the memory uses")
    info.add_argument("bag", type=Path, help="folder of a rosbag2, or an .mcap or .db3 file in it")
    add_play_arguments(commands.add_parser("play", help="play a bag into a running node, with /clock"))
    make = commands.add_parser("make", help="make a bag from a video file, or a small one from photographs")
    make.add_argument("source", help="a video file, or the word photographs")
    make.add_argument("bag", type=Path, help="folder to write, which must not exist")
    make.add_argument("--wav", type=Path, help="16-bit sound file to use instead of the video's own sound")
    cut = commands.add_parser("cut", help="copy a stretch of a bag to a new one")
    cut.add_argument("bag", type=Path, help="bag to cut")
    cut.add_argument("out", type=Path, help="folder to write, which must not exist")
    add_stretch_arguments(cut)
    cut.add_argument("--all-topics", action="store_true", help="also copy topics that the memory does not use")


def run(args: argparse.Namespace) -> int:
    """Run one; returns the exit status."""
    if args.action == "play":
        from salmonn_node.live.bag_player import run_player

        return run_player(args)
    try:
        return {"info": _info, "make": _make, "cut": _cut}[args.action](args)
    except (OSError, ModuleNotFoundError, RuntimeError, ValueError) as error:
        print(f"salmonn bag {args.action}: {error}", file=sys.stderr)
        return 2


def _info(args: argparse.Namespace) -> int:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from salmonn_node.replay.bag import Bag
    from salmonn_node.replay.topic_choice import choose_topics

    with Bag(args.bag) as bag:
        chosen = choose_topics(bag)
        files = [args.bag] if args.bag.is_file() else [f for f in args.bag.iterdir() if f.is_file()]
        print(f"{bag.path}: {bag.duration_s:.1f} s, {sum(f.stat().st_size for f in files) / 1e6:.1f} MB")
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for heading in ("topic", "type", "messages", "promised", "Hz", "used as"):
            number = heading in ("messages", "promised", "Hz")
            table.add_column(heading, justify="right" if number else "left", no_wrap=number, overflow="fold")
        for topic in bag.topics:
            rate = topic.count / bag.duration_s if bag.duration_s else 0.0
            promised = "?" if topic.promised is None else str(topic.promised)
            msgtype = topic.msgtype.replace("/msg/", "/")
            used = chosen.used_as(topic.name) or "[dim]not used[/dim]"
            table.add_row(topic.name, msgtype, str(topic.count), promised, f"{rate:.1f}", used)
        # Names are not folded where somebody searches for them.
        Console(width=None if sys.stdout.isatty() else 200).print(table)
        for line in [*bag.notes, *chosen.reasons, *(f"{t} is not used: {why}" for t, why in chosen.ignored.items())]:
            print(line)
    return 0


def _make(args: argparse.Namespace) -> int:
    from salmonn_node.replay.bag_cut import whole_or_nothing

    with whole_or_nothing(args.bag) as folder:
        if args.source == "photographs":
            from salmonn_node.replay.photographs import write_photographs

            write_photographs(folder)
        else:
            from salmonn_node.replay.video_bag import write_video

            write_video(Path(args.source), folder, args.wav)
    print(f"wrote {args.bag}")
    return 0


def _cut(args: argparse.Namespace) -> int:
    from salmonn_node.replay.bag_cut import cut_bag

    cut = cut_bag(args.bag, args.out, start_s=args.start, duration_s=args.duration, all_topics=args.all_topics)
    for line in cut.notes:
        print(line)
    for topic, count in cut.carried.items():
        print(f"{topic}: {count} earlier messages that still hold are written at the beginning")
    for topic, reason in cut.left_out.items():
        print(f"{topic} is not copied: {reason}")
    print(f"wrote {args.out}: {cut.copied.total() + cut.carried.total()} messages")
    return 0
