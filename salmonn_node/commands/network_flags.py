"""Flags of the network's settings, the same for every command: `--checkpoint`, `--device`, `--weights` and so on."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Collection

from salmonn_node.model.network_settings import NetworkSettings


def add_network_flags(parser: argparse.ArgumentParser, without: Collection[str] = ()) -> None:
    """Add a flag for each setting but those of `without`."""
    group = parser.add_argument_group("network")
    for entry in dataclasses.fields(NetworkSettings):
        if entry.name in without:
            continue
        limits = entry.metadata
        text = limits["text"][0].lower() + limits["text"][1:].rstrip(".")
        group.add_argument(
            f"--{entry.name.replace('_', '-')}",
            type=type(entry.default),
            default=entry.default,
            choices=limits["choices"] or None,
            metavar=None if limits["choices"] else "N" if isinstance(entry.default, int) else "NAME",
            help=f"{text} (default: {entry.default})",
        )


def network_of(args: argparse.Namespace) -> NetworkSettings:
    """The settings that the flags give; what has no flag keeps its default.

    Raises:
        ValueError: a number outside its range.
    """
    names = {entry.name for entry in dataclasses.fields(NetworkSettings)}
    return NetworkSettings(**{name: value for name, value in vars(args).items() if name in names and value is not None})
