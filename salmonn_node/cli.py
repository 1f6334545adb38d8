"""One command, `salmonn`: a table of sub-commands, each imported only when it is called."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

# name -> (module, help). A module provides add_arguments(parser) and run(args) -> exit status.
COMMANDS: dict[str, tuple[str, str]] = {
    "ask": ("salmonn_node.commands.ask", "ask a running node or a recording"),
    "bag": ("salmonn_node.commands.bag", "show, play, cut or make a rosbag"),
    "bench": ("salmonn_node.commands.bench", "run a benchmark and print its figures"),
    "calibrate": ("salmonn_node.commands.calibrate", "fit confidences and abstention to your own questions"),
    "checkpoint": ("salmonn_node.commands.checkpoint", "get a checkpoint by name, inspect, verify or convert one"),
    "demo": ("salmonn_node.commands.demo", "run the node on the demo bag and ask it questions"),
    "doctor": ("salmonn_node.commands.doctor", "show what this machine can build and run"),
    "engines": ("salmonn_node.commands.engines", "export, build, verify and list encoder engines"),
    "eval": ("salmonn_node.commands.evaluate", "score memories on synthetic worlds"),
    "golden": ("salmonn_node.commands.golden", "check the network against vectors of the public release"),
    "mcp": ("salmonn_node.commands.mcp", "serve a running node's memory to assistants over MCP"),
    "memory": ("salmonn_node.commands.memory", "list, show, verify, export and clean stored memories"),
    "plan": ("salmonn_node.commands.plan", "show which networks fit this machine, and what one needs"),
    "questions": ("salmonn_node.commands.questions", "check a question file or import one"),
    "replay": ("salmonn_node.commands.replay", "replay bags through the memory and score the answers"),
    "train": ("salmonn_node.commands.train", "train the tiny checkpoint, or its stand-in without an evidence head"),
    "ui": ("salmonn_node.commands.ui", "serve a page to ask and see what a memory holds"),
    "world": ("salmonn_node.commands.world", "make or show a synthetic world"),
}
# A sub-command that misses one of these says that it needs ROS 2.
ROS_MODULES = ("rclpy", "salmonn_interfaces", "rosgraph_msgs", "diagnostic_msgs", "sensor_msgs")


class IntermixedParser(argparse.ArgumentParser):
    """A parser that takes flags before, between and after the other arguments, as in `replay BAG --questions FILE BAG`.

    argparse can do so only without sub-commands. What follows `--` is no flag.
    """

    _intermixes = True

    def add_subparsers(self, **kwargs: Any) -> Any:
        """As the base class."""
        self._intermixes = False
        return super().add_subparsers(**kwargs)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The values, and the arguments left over."""
        if not self._intermixes or "--" in (args or ()):
            return super().parse_known_args(args, namespace)
        self._intermixes = False  # the base class may call this method again, for each half of the arguments
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixes = True


def build_parser(only: str | None) -> argparse.ArgumentParser:
    """Build the parser; arguments of sub-commands other than `only` are left out, so that nothing heavy is imported."""
    parser = argparse.ArgumentParser(prog="salmonn", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=IntermixedParser)
    for name, (module, text) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == only:
            loaded = importlib.import_module(module)
            loaded.add_arguments(sub)
            sub.set_defaults(run=loaded.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command; returns its exit status, 2 when it needs ROS 2 or a home and there is none."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = next((a for a in arguments if not a.startswith("-")), None)
    args = build_parser(name).parse_args(arguments)
    try:
        return int(args.run(args) or 0)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ROS_MODULES:
            raise
        print(
            f"salmonn {args.command}: this needs ROS 2, and the Python module {error.name} is not installed. "
            "Source a ROS 2 Jazzy workspace with salmonn_interfaces in it, or run `make setup` in the repository.",
            file=sys.stderr,
        )
        return 2
    except RuntimeError as error:  # of pathlib: neither HOME nor an entry in the password file
        if "home directory" not in str(error):
            raise
        print(
            f"salmonn {args.command}: this user has no home directory. Set HOME, or each of XDG_CACHE_HOME, "
            "XDG_DATA_HOME and HF_HOME, to a folder that this user may write, and name paths without ~.",
            file=sys.stderr,
        )
        return 2


if __name__ == "__main__":
    sys.exit(main())
