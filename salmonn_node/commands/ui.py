"""`salmonn ui`: a page to ask and see what a memory holds: a running node's, a recording's, or a stored one."""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from salmonn_node.commands.recording_flags import add_recording_flags, settings_of

if TYPE_CHECKING:
    from salmonn_node.ui.server import Address
    from salmonn_node.ui.source import Source

PORT = 8500
TOKEN = "SALMONN_UI_TOKEN"  # the environment variable, not a token
MISSING = "the page needs the extra `ui`: pip install 'salmonn_node[ui]', or `make setup` in the repository"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `salmonn ui`."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--node", default="salmonn", help="name of the running node (%(default)s)")
    what.add_argument("--bag", type=Path, metavar="BAG", help="a recording instead: bag, .mcap, .db3, .bag or video")
    what.add_argument("--memory", metavar="NAME", help="a stored memory instead, which is only read")
    add = parser.add_argument
    add("--directory", type=Path, default=None, help="folder of stored memories, for --memory (the node's default)")
    add("--fresh", action="store_true", help="with --bag: take it in anew, although its memory is in the cache")
    add("--host", default="127.0.0.1", help="address to listen on; any but this machine's needs a token (%(default)s)")
    add("--port", type=int, default=PORT, help="port to listen on (%(default)s)")
    add("--read-only", action="store_true", help="no forgetting, saving and loading")
    add_recording_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C; 2: it cannot be served, and why."""
    from salmonn_node.storage.snapshot import SnapshotError

    try:
        address = _address(args)
        with _opened(args) as source:
            from salmonn_node.ui.server import serve

            print(f"The page of the {source.title}: {address.url}  (Ctrl-C ends it)", flush=True)
            serve(source, address)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "nicegui":
            raise
        print(f"salmonn ui: {MISSING}", file=sys.stderr)
        return 2
    except (ValueError, OSError, SnapshotError) as error:
        print(f"salmonn ui: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0
    return 0


def _address(args: argparse.Namespace) -> Address:
    """Where the page will be; raises OSError when the port is taken."""
    from salmonn_node.ui.guard import is_loopback, new_token
    from salmonn_node.ui.server import Address

    family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((args.host, args.port))
        except (OSError, OverflowError) as error:
            raise OSError(f"cannot listen on {args.host} port {args.port}: {error}; --port names another") from error
    token = os.environ.get(TOKEN, "")
    return Address(args.host, args.port, token or ("" if is_loopback(args.host) else new_token()))


def _opened(args: argparse.Namespace) -> contextlib.AbstractContextManager[Source]:
    """What the page shows."""
    from salmonn_node.ui import opening

    if args.bag is not None:

        def show(done_s: float, duration_s: float) -> None:
            if sys.stderr.isatty():
                print(f"\rtaking in {args.bag}: {done_s:.0f} of {duration_s:.0f} s ", end="", file=sys.stderr)

        return opening.open_recording(args.bag, settings_of(args), args.fresh, show)
    if args.memory is not None:
        from salmonn_node.commands.network_flags import network_of
        from salmonn_node.storage.directory import default_root

        root = (args.directory or default_root()).expanduser()
        return opening.open_stored(root, args.memory, network_of(args))
    return opening.open_node(args.node, args.read_only)
