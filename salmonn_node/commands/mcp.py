"""`salmonn mcp`: serve a running node's memory to assistants that speak the Model Context Protocol."""

from __future__ import annotations

import argparse
import json
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `salmonn mcp`."""
    parser.add_argument("--node", default="salmonn", help="name of the node (default: salmonn)")
    parser.add_argument("--schema", action="store_true", help="print the tools as JSON, and end")


def run(args: argparse.Namespace) -> int:
    """Serve standard input and output until the input ends; 2: the package mcp is missing, or a wrong name."""
    import rclpy

    from salmonn_node.client import Memory, tools
    from salmonn_node.client.mcp_server import serve
    from salmonn_node.runtime.shared_memory import remove_empty_ports

    if args.schema:
        schemas = (
            (tools.ASK, tools.ASK_TEXT, tools.ask_schema()),
            (tools.WATCH, tools.WATCH_TEXT, tools.watch_schema()),
        )
        print(json.dumps([{"name": n, "description": d, "inputSchema": s} for n, d, s in schemas], indent=2))
        return 0
    remove_empty_ports()
    rclpy.init()
    try:
        with Memory(rclpy.create_node("salmonn_mcp"), args.node) as memory:
            serve(memory)
    except ModuleNotFoundError as error:
        print(f"salmonn mcp: {error}; install the extra: pip install 'salmonn_node[mcp]'", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"salmonn mcp: --node: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        rclpy.try_shutdown()
    return 0
