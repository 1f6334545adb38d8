"""`salmonn demo`: the real node, a bag played into it, questions asked while it plays and after, answers in a table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn demo`."""
    parser.add_argument(
        "--bag", choices=("world", "photographs"), default="world", help="which of two small bags to play (%(default)s)"
    )
    parser.add_argument("--rate", type=float, default=6.0, help="times as fast as recorded (%(default)s)")
    parser.add_argument("--checkpoint", default="tiny", help="tiny, or a checkpoint folder (%(default)s)")
    parser.add_argument("--kill", action="store_true", help="kill the node half way, then ask its successor")
    parser.add_argument("--ui", action="store_true", help="keep the node up afterwards, with its page in a browser")
    parser.add_argument("--offline", action="store_true", help="no node and no ROS: replay the bag in this process")
    parser.add_argument(
        "--output", type=Path, default=Path("demo_output"), help="folder for pictures, answers and logs (%(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the demo; 0 when every answer keeps its promises, be it right or wrong; 2 for bad arguments."""
    from rich.console import Console

    from salmonn_node.live.demo_setup import DemoOptions

    console = Console()
    options = DemoOptions(args.bag, args.rate, args.checkpoint, args.output, args.ui)
    try:
        if args.ui and (args.kill or args.offline):
            raise ValueError("--ui needs the running node, so leave out --kill and --offline")
        if args.ui:
            from salmonn_node.live.demo_page import check_page

            check_page()
        if args.kill:
            from salmonn_node.live.demo_kill import run_demo_kill

            return 0 if run_demo_kill(options, console) else 1
        if args.offline:
            from salmonn_node.live.demo_offline import run_demo_offline

            return 0 if run_demo_offline(options, console) else 1
        from salmonn_node.live.demo import run_demo

        return 0 if run_demo(options, console) else 1
    except ValueError as error:
        print(f"salmonn demo: {error}", file=sys.stderr)
        return 2
