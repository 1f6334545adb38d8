"""Flags of a server as the reader, for `salmonn replay` and `salmonn ask --bag`: `--reader server` and its own."""

from __future__ import annotations

import argparse
import dataclasses

from salmonn_node.answering.server_settings import ServerSettings

# A replay writes captions before it asks, not in idle time.
WITHOUT = ("server_caption_period_s",)


def add_server_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting."""
    group = parser.add_argument_group("reader")
    for entry in dataclasses.fields(ServerSettings):
        if entry.name in WITHOUT:
            continue
        limits, flag = entry.metadata, f"--{entry.name.replace('_', '-')}"
        text = limits["text"][0].lower() + limits["text"][1:].rstrip(".")
        if isinstance(entry.default, bool):
            group.add_argument(flag, action="store_true", help=text)
            continue
        group.add_argument(
            flag,
            type=type(entry.default),
            default=entry.default,
            choices=limits["choices"] or None,
            metavar=None if limits["choices"] else "N" if isinstance(entry.default, (int, float)) else "TEXT",
            help=f"{text} (default: {entry.default or 'none'})",
        )
    group.add_argument(
        "--captions", type=int, default=0, metavar="N", help="captions by the server before a question, at most (0)"
    )


def server_of(args: argparse.Namespace) -> ServerSettings:
    """The settings that the flags give.

    Raises:
        ValueError: a number outside its range, or a server that cannot be asked.
    """
    names = {entry.name for entry in dataclasses.fields(ServerSettings)} - set(WITHOUT)
    settings = ServerSettings(**{name: value for name, value in vars(args).items() if name in names})
    if settings.outside:
        settings.check()
    return settings
