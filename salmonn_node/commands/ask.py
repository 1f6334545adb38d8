"""`salmonn ask "where is the red box?"`: one question to a running node, the typed answer as a table or as JSON."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import json
import math
import signal
import sys
import threading
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np

from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Outcome
from salmonn_node.stream.observations import SECOND_NS

INTERRUPTED = 130  # what a shell reports for a command that Ctrl-C ended


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `salmonn ask`."""
    parser.add_argument("text", help="the question")
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


def run(args: argparse.Namespace) -> int:
    """Ask and print; 0: there is an answer, 1: not observed or ambiguous, 2: an error, 130: Ctrl-C."""
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    from salmonn_node.client import Memory

    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    cancel = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: cancel.set())
    try:
        with Memory(rclpy.create_node("salmonn_ask"), args.node) as memory:
            answer = memory.ask(
                args.text,
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
    print(json.dumps(_plain(answer), indent=2) if args.json else describe(answer))
    if cancel.is_set() and answer.error_code == ErrorCode.CANCELED:
        return INTERRUPTED
    if answer.error_code != ErrorCode.NONE:
        return 2
    return 0 if answer.outcome == Outcome.ANSWERED else 1


def _stamp_ns(text: str) -> int:
    """Nanoseconds of a stamp in seconds, exactly; a float would be off by up to 128 ns today."""
    try:
        seconds = Decimal(text)
    except InvalidOperation:
        seconds = Decimal("nan")
    if not seconds.is_finite() or abs(seconds) > 10**15:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return int(seconds * SECOND_NS)


def describe(answer: Answer) -> str:
    """The answer in a few lines for a person."""
    if answer.error_code != ErrorCode.NONE:
        return f"{answer.error_code.name}: {answer.error_msg}"
    lines = [answer.text or "(no text)", f"  outcome     {answer.outcome.name}, {answer.answer_type.name}"]
    if answer.answer_type == AnswerType.BINARY:
        lines.append(f"  binary      {'yes' if answer.binary else 'no'}")
    if answer.answer_type == AnswerType.CHOICE:
        lines.append(f"  choice      {answer.choice_index}")
    if answer.answer_type == AnswerType.COUNT:
        lines.append(f"  count       {answer.count}")
    if answer.pose is not None:
        x, y, z = answer.pose.position
        frame = answer.pose.frame_id + (f" of {answer.map_id}" if answer.map_id else "")
        lines.append(f"  position    {x:.2f} {y:.2f} {z:.2f} m in {frame} ({answer.pose_kind.name})")
    if answer.event is not None:
        lines.append(f"  event       {answer.event.start_ns / 1e9:.2f} .. {answer.event.end_ns / 1e9:.2f} s")
    if not math.isnan(answer.confidence):
        lines.append(f"  confidence  {answer.confidence:.2f}")
    for item in answer.evidence:
        span = f"{item.interval.start_ns / 1e9:.2f} .. {item.interval.end_ns / 1e9:.2f} s"
        lines.append(f"  evidence    {item.source} ({item.modality}) {span}, weight {item.score:.2f}")
    lines.append(f"  latency     {answer.latency_s:.3f} s")
    return "\n".join(lines)


def _show_partial(text: str) -> None:
    print(f"\r{text[-100:]}", end="\r", file=sys.stderr, flush=True)


def _plain(value: Any) -> Any:
    """JSON's types: names for enumerations, lists for arrays, null for NaN, lengths for pictures."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, bytes):
        return {"bytes": len(value)}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value
