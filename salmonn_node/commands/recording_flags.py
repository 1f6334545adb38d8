"""Flags of a recording, the same for `salmonn replay` and `salmonn ask --bag`: topics, map, mounts, rate, network."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from salmonn_node.commands.network_flags import add_network_flags, network_of
from salmonn_node.commands.server_flags import add_server_flags, server_of

if TYPE_CHECKING:
    from salmonn_node.replay.job import JobSettings


def add_recording_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add = parser.add_argument_group("recording").add_argument
    add("--camera", action="append", default=[], metavar="TOPIC", help="camera topic, repeatable (found by type)")
    add("--microphone", action="append", default=[], metavar="TOPIC", help="sound topic, repeatable (found by type)")
    add(
        "--pose",
        default=None,
        metavar="TOPIC",
        help="topic of the robot's pose, 'tf' to take it from tf, '' for none (found)",
    )
    add("--map-id", default="", help="name of the map that the poses refer to")
    add(
        "--mount",
        action="append",
        default=[],
        metavar="CAMERA=X,Y,Z,ROLL,PITCH,YAW",
        help="a camera's optical frame in base_link (m, rad), repeatable (from the bag's tf)",
    )
    add(
        "--stamp-offset",
        action="append",
        default=[],
        metavar="SOURCE=S",
        help="seconds added to the stamps of a camera, microphone or `pose` whose clock is off, repeatable",
    )
    add("--ground-z", type=float, default=0.0, metavar="M", help="height of what objects stand on (%(default)s)")
    add("--frame-rate", type=float, default=1.0, metavar="HZ", help="frames looked at per second (%(default)s)")
    select = parser.add_argument_group("part of the recording, as in ros2 bag play").add_argument
    select("--start-offset", type=float, default=0.0, metavar="S", help="seconds after its start (%(default)s)")
    select("--playback-duration", type=float, default=0.0, metavar="S", help="seconds; 0: to the end (%(default)s)")
    select("--topics", nargs="+", action="extend", default=[], metavar="TOPIC", help="read only these topics (all)")
    select("--exclude-topics", nargs="+", action="extend", default=[], metavar="TOPIC", help="do not read these topics")
    add_network_flags(parser)
    add_server_flags(parser)


def settings_of(args: argparse.Namespace) -> JobSettings:
    """The settings that the flags give; the arm is the default one.

    Raises:
        ValueError: a mount or a number that cannot be used.
    """
    from salmonn_node.replay.job import JobSettings
    from salmonn_node.replay.recording_part import RecordingPart
    from salmonn_node.stream.stamp_offset import parse_offset

    return JobSettings(
        network=network_of(args),
        cameras=tuple(args.camera),
        microphones=tuple(args.microphone),
        pose=args.pose,
        map_id=args.map_id,
        frame_rate_hz=args.frame_rate,
        mounts=tuple(parse_mount(text) for text in args.mount),
        ground_z_m=args.ground_z,
        stamp_offsets=tuple(parse_offset(text) for text in args.stamp_offset),
        part=RecordingPart(args.start_offset, args.playback_duration, tuple(args.topics), tuple(args.exclude_topics)),
        server=server_of(args),
        captions=args.captions,
    )


def parse_mount(text: str) -> tuple[str, tuple[float, ...]]:
    """Read CAMERA=X,Y,Z,ROLL,PITCH,YAW (m, rad); raises ValueError when the text is something else."""
    from salmonn_node.stream.transforms import mounted

    camera, _, numbers = text.partition("=")
    try:
        values = tuple(float(n) for n in numbers.split(","))
        mounted("base_link", camera, values)
    except ValueError:
        raise ValueError(f"--mount: expected CAMERA=X,Y,Z,ROLL,PITCH,YAW, got {text!r}") from None
    return camera, values
