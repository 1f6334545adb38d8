"""`salmonn bag`: look at a bag, play it into a running node, make a small one, cut a piece out."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from salmonn_node.stream.observations import SECOND_NS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-commands."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    info = commands.add_parser("info", help="say what a bag contains and what of it the memory uses")
    info.add_argument("bag", type=Path)
    play = commands.add_parser("play", add_help=False, help="play a bag into a running node, with /clock")
    play.add_argument("arguments", nargs=argparse.REMAINDER, help="see `salmonn bag play --help`")
    make = commands.add_parser("make", help="make a bag of a video file, or a small one of photographs")
    make.add_argument("source", help="a video file, or `photographs`; `salmonn world make` makes synthetic flats")
    make.add_argument("bag", type=Path, help="folder to write, must not exist")
    make.add_argument("--wav", type=Path, help="sound for the video, 16-bit, instead of its own")
    cut = commands.add_parser("cut", help="copy a stretch of a bag, and the topics that the memory uses, to a new one")
    cut.add_argument("bag", type=Path)
    cut.add_argument("out", type=Path, help="folder to write, must not exist")
    cut.add_argument("--start", type=float, default=0.0, metavar="S", help="seconds after the bag's start")
    cut.add_argument("--duration", type=float, default=0.0, metavar="S", help="seconds; 0: to the end")
    cut.add_argument("--all-topics", action="store_true", help="copy topics that the memory has no use for, too")


def run(args: argparse.Namespace) -> int:
    """Run one; returns the exit status."""
    if args.action == "play":
        # The player needs rclpy, which this room does not import.
        os.execv(sys.executable, [sys.executable, "-m", "salmonn_node.live.bag_player", *args.arguments])
    try:
        return {"info": _info, "make": _make, "cut": _cut}[args.action](args)
    except (OSError, ModuleNotFoundError, RuntimeError, ValueError) as error:
        print(f"salmonn bag {args.action}: {error}", file=sys.stderr)
        return 2


def _info(args: argparse.Namespace) -> int:
    from salmonn_node.replay.bag import Bag

    with Bag(args.bag) as bag:
        size = sum(f.stat().st_size for f in bag.path.iterdir() if f.is_file())
        print(f"{bag.path}: {bag.duration_s:.1f} s, {size / 1e6:.1f} MB")
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for heading in ("topic", "type", "messages", "Hz", "used as"):
            number = heading in ("messages", "Hz")
            table.add_column(heading, justify="right" if number else "left", no_wrap=number, overflow="fold")
        for topic in bag.topics:
            rate = topic.count / bag.duration_s if bag.duration_s else 0.0
            used = topic.role if topic.source in ("", topic.role) else f"{topic.role} {topic.source}"
            msgtype = topic.msgtype.replace("/msg/", "/")
            table.add_row(topic.name, msgtype, str(topic.count), f"{rate:.1f}", used or "[dim]not used[/dim]")
    Console().print(table)
    return 0


def _make(args: argparse.Namespace) -> int:
    _refuse_existing(args.bag)
    if args.source == "photographs":
        from salmonn_node.replay.photographs import write_photographs

        write_photographs(args.bag)
    else:
        from salmonn_node.replay.video_bag import write_video

        write_video(Path(args.source), args.bag, args.wav)
    print(f"wrote {args.bag}")
    return 0


def _cut(args: argparse.Namespace) -> int:
    from rosbags.rosbag2 import StoragePlugin, Writer

    from salmonn_node.messages.bag_types import bag_typestore
    from salmonn_node.replay.bag import Bag

    if args.start < 0 or args.duration < 0:
        raise ValueError("--start and --duration must not be negative")
    _refuse_existing(args.out)
    copied = 0
    with Bag(args.bag) as bag, Writer(args.out, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        used = {t.name for t in bag.topics if t.role or args.all_topics}
        begin = bag.start_ns + round(args.start * SECOND_NS)
        end = begin + round(args.duration * SECOND_NS) if args.duration else bag.end_ns
        connections: dict[str, object] = {}
        for topic, msgtype, log_ns, data in bag.raw(begin, end):
            if topic not in used:
                continue
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, msgtype, typestore=bag_typestore())
            writer.write(connections[topic], log_ns, data)
            copied += 1
    print(f"wrote {args.out}: {copied} messages")
    return 0


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise FileExistsError(f"{path} exists already")
