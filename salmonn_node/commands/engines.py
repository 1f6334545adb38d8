"""`salmonn engines`: export, build, verify, bench, list and prune plans of the encoders."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from salmonn_node.engines.flavours import DTYPE_NAMES, FLAVOURS
from salmonn_node.engines.reasons import EngineError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, text: str, network: bool = False) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.add_argument("--root", type=Path, help="folder of plans (default: $SALMONN_ENGINES, or engines/)")
        if network:
            source = sub.add_mutually_exclusive_group(required=True)
            source.add_argument("--profile", help="a network's sizes, with random weights")
            source.add_argument("--checkpoint", help="a folder, or a name as for `salmonn checkpoint get`")
            sub.add_argument("--seed", type=int, default=0, help="seed of random weights")
            sub.add_argument("--encoder", choices=("both", "vision", "audio"), default="both")
            sub.add_argument("--camera", default="640x360", metavar="WxH", help="camera size that fixes the grid")
            sub.add_argument("--grid", metavar="ROWSxCOLS", help="the grid itself, in 16x16 patches")
            sub.add_argument("--dtype", choices=DTYPE_NAMES, default="bf16")
            sub.add_argument("--flavour", choices=FLAVOURS, default=None, help="default: the one that is installed")
        return sub

    export = action("export", "write the ONNX files of the encoders", network=True)
    export.add_argument("--out", type=Path, required=True)
    for name, text in (
        ("build", "build plans, check them, and put them into the cache"),
        ("verify", "check plans against a network and this machine; on a GPU, run them against torch"),
    ):
        sub = action(name, text, network=True)
        sub.add_argument("--frame", type=Path, action="append", default=[], help="image to try parity on (repeatable)")
        sub.add_argument("--clip", type=Path, action="append", default=[], help="16 kHz WAV to try parity on")
        sub.add_argument("--seeds", type=int, default=3, help="noise inputs for parity, 0 for none (%(default)s)")
        if name == "build":
            sub.add_argument("--front-end", choices=("onnx", "torch_tensorrt"), default="onnx")
            sub.add_argument("--workspace-mib", type=int, default=0, help="limit of the builder's GPU scratch memory")
            sub.add_argument("--force", action="store_true", help="build even if the plan is there")
    bench = action("bench", "time the encoders on every backend of this machine", network=True)
    bench.add_argument("--repeats", type=int, default=10)
    action("list", "list plans and whether this machine can use them")
    prune = action("prune", "remove unfinished builds and plans that this machine cannot use")
    prune.add_argument("--dry-run", action="store_true")


def run(args: argparse.Namespace) -> int:
    """Run one action; 0 when it did what was asked."""
    from salmonn_node.commands import engine_actions

    actions = {
        "export": engine_actions.export,
        "build": engine_actions.build,
        "verify": engine_actions.verify,
        "bench": engine_actions.bench,
        "list": engine_actions.show_list,
        "prune": engine_actions.prune,
    }
    try:
        return actions[args.action](args)
    except (EngineError, ValueError, FileNotFoundError) as error:
        print(f"salmonn engines {args.action}: {error}", file=sys.stderr)
        return 1
