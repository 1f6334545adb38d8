"""`salmonn ask "where is the red box?"`: ask a running node, or with --bag a recording; typed answers, evidence."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from decimal import Decimal, InvalidOperation

from salmonn_node.commands import ask_recording
from salmonn_node.commands.answer_text import describe, exit_status, plain_values
from salmonn_node.stream.answers import AnswerType, ErrorCode
from salmonn_node.stream.observations import SECOND_NS

INTERRUPTED = 130  # what a shell reports for a command that Ctrl-C ended


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `salmonn ask`."""
    parser.add_argument("text", nargs="*", help="the question; with --bag as many as you like, or none for a prompt")
    kinds = [kind.name.lower() for kind in AnswerType]
    parser.add_argument("--type", choices=kinds, default="any", help="kind of answer that you want (%(default)s)")
    parser.add_argument("--choice", action="append", default=[], help="an option of a choice question; repeat")
    parser.add_argument(
        "--after",
        type=_stamp_ns,
        default=0,
        metavar="S",
        help="read the memory from this stamp on, seconds (0: from its start)",
    )
    parser.add_argument(
        "--before",
        type=_stamp_ns,
        default=0,
        metavar="S",
        help="read the memory up to this stamp, seconds (0: up to now)",
    )
    parser.add_argument("--source", action="append", default=[], help="read only this camera or microphone; repeat")
    parser.add_argument("--frame", default="", help="frame of the poses in the answer (as observed)")
    parser.add_argument("--timeout", type=float, default=10.0, help="deadline of the answer, seconds (%(default)s)")
    parser.add_argument("--node", default="salmonn", help="name of the node (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the whole answer as JSON")
    ask_recording.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Ask and print; 0: there is an answer, 1: not observed or ambiguous, 2: an error, 130: Ctrl-C."""
    if args.bag is not None:
        return ask_recording.run(args)
    if len(args.text) != 1:
        print("salmonn ask: a running node is asked one question; --bag BAG asks a recording", file=sys.stderr)
        return 2
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    from salmonn_node.client import Memory
    from salmonn_node.runtime.shared_memory import remove_empty_ports

    remove_empty_ports()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    cancel = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: cancel.set())
    try:
        with Memory(rclpy.create_node("salmonn_ask"), args.node) as memory:
            answer = memory.ask(
                args.text[0],
                answer_type=AnswerType[args.type.upper()],
                choices=args.choice,
                after_ns=args.after,
                before_ns=args.before,
                sources=args.source,
                target_frame=args.frame,
                timeout_s=args.timeout,
                on_text=None if args.json or not sys.stderr.isatty() else _show_partial,
                cancel=cancel,
            )
    except ValueError as error:
        print(f"salmonn ask: --node: {error}", file=sys.stderr)
        return 2
    finally:
        rclpy.try_shutdown()
    print(json.dumps(plain_values(answer), indent=2) if args.json else describe(answer))
    if cancel.is_set() and answer.error_code == ErrorCode.CANCELED:
        return INTERRUPTED
    return exit_status(answer)


def _stamp_ns(text: str) -> int:
    """Nanoseconds of a stamp in seconds, exactly; a float would be off by up to 128 ns today."""
    try:
        seconds = Decimal(text)
    except InvalidOperation:
        seconds = Decimal("nan")
    if not seconds.is_finite() or abs(seconds) > 10**15:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return int(seconds * SECOND_NS)


def _show_partial(text: str) -> None:
    print(f"\r{text[-100:]}", end="\r", file=sys.stderr, flush=True)
