"""The arguments of `salmonn bag play`; they load no rclpy, so that `--help` is quick."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_play_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the bag player."""
    add = parser.add_argument
    add("bag", type=Path, help="folder of a rosbag2, or an .mcap or .db3 file in it")
    add("--rate", type=float, default=1.0, help="times as fast as recorded (%(default)s)")
    add_stretch_arguments(parser)
    add("--loop", type=int, default=1, metavar="N", help="play N times; each time starts a new session (%(default)s)")
    add("--topics", nargs="*", default=[], help="play only these topics (all)")
    add("--wait-for", nargs="*", default=[], metavar="TOPIC", help="wait until each of these topics has a subscriber")
    add("--wait-s", type=float, default=60.0, metavar="S", help="wait at most this long (%(default)s)")
    add("--meet", default="", metavar="NODE", help="wait until this node hears every topic that is played")
    add("--report", type=Path, metavar="FILE", help="write the number of messages of each topic to this JSON file")
    add("--no-clock", action="store_true", help="do not publish /clock")


def add_stretch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which stretch of a bag is meant, under the project's names and those of `ros2 bag play`."""
    add = parser.add_argument
    add(
        "--start",
        "--start-offset",
        type=float,
        default=0.0,
        metavar="S",
        help="seconds after the start of the bag (%(default)s)",
    )
    add(
        "--duration",
        "--playback-duration",
        type=float,
        default=0.0,
        metavar="S",
        help="seconds; 0: to the end (%(default)s)",
    )
