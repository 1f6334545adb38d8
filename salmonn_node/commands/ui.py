"""`salmonn ui`: a page beside the robot, to ask, see what is remembered, watch and forget."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from salmonn_node.ui.server import Address

PORT = 8500
TOKEN = "SALMONN_UI_TOKEN"  # the environment variable, not a token
MISSING = "the page needs the extra `ui`: pip install 'salmonn_node[ui]', or `make setup` in the repository"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `salmonn ui`."""
    add = parser.add_argument
    add("--node", default="salmonn", help="name of the running node (%(default)s)")
    add("--host", default="127.0.0.1", help="address to listen on; any but this machine's needs a token (%(default)s)")
    add("--port", type=int, default=PORT, help="port to listen on (%(default)s)")
    add("--read-only", action="store_true", help="no forgetting, saving and loading")


def run(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C; 2: it cannot be served, and why."""
    try:
        address = _address(args)
        return _serve_node(args, address)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "nicegui":
            raise
        print(f"salmonn ui: {MISSING}", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"salmonn ui: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
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


def _serve_node(args: argparse.Namespace, address: Address) -> int:
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    from salmonn_node.ui.node_source import NodeSource
    from salmonn_node.ui.server import serve

    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        source = NodeSource(rclpy.create_node("salmonn_ui"), args.node, read_only=args.read_only)
        try:
            print(f"The page of node {args.node}: {address.url}  (Ctrl-C ends it)", flush=True)
            serve(source, address)
        finally:
            source.close()
    finally:
        rclpy.try_shutdown()
    return 0
