"""Plays a bag into a ROS graph: each topic through a publisher of its type, on time, with /clock."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock

from salmonn_node.client import Memory
from salmonn_node.live.player_arguments import add_play_arguments
from salmonn_node.replay.bag import Bag
from salmonn_node.runtime.shared_memory import remove_empty_ports
from salmonn_node.stream.observations import SECOND_NS

CLOCK_HZ = 100.0
SETTLE_S = 1.0
# Fast DDS drops best-effort messages that do not fit its shared-memory segment; only the publisher can mend that.
LARGE_MESSAGE_BYTES = 400_000
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")


class BagPlayer(Node):
    """Publishes the messages of a bag; /clock runs from the bag's start to its end.

    Args:
        bag: an open bag.
        topics: play these only; empty plays all whose types are installed.
        clock: publish /clock.
    """

    def __init__(self, bag: Bag, *, topics: Sequence[str] = (), clock: bool = True) -> None:
        super().__init__("salmonn_bag_player")
        self.bag = bag
        self.sent: Counter[str] = Counter()
        self.worst_late_s = 0.0
        self._topics: dict[str, Any] = {}
        for topic in bag.topics:
            if topic.name == "/clock" or (topics and topic.name not in topics):
                continue
            message_type = _message_type(topic.msgtype)
            if message_type is None:
                self.get_logger().warning(f"{topic.name}: {topic.msgtype} is not installed, not played")
                continue
            if topic.encoding != "cdr":
                self.get_logger().warning(f"{topic.name}: its messages are {topic.encoding}, not played")
                continue
            latched = topic.latched or topic.name.endswith("/tf_static")
            durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
            qos = QoSProfile(depth=2_000, reliability=ReliabilityPolicy.RELIABLE, durability=durability)
            self._topics[topic.name] = self.create_publisher(message_type, topic.name, qos)
        self._clock_publisher = self.create_publisher(Clock, "/clock", 10) if clock else None

    def wait_for_listeners(self, topics: Sequence[str], timeout_s: float, meet: str = "") -> list[str]:
        """Wait until each of `topics` has a subscriber; returns those that have none when the time is over.

        Discovery is not symmetric: a subscriber seen here may not have seen the publisher, and would miss the start.
        A node named in `meet` is waited for until it replies to a client made after the publishers, and so knows them;
        others get a moment.
        """
        deadline = time.monotonic() + timeout_s
        missing = [t for t in topics if t in self._topics]
        while missing and time.monotonic() < deadline:
            missing = [t for t in missing if self._topics[t].get_subscription_count() == 0]
            time.sleep(0.05)
        if meet:
            absent = Memory(self, meet).state(max(0.0, deadline - time.monotonic())) == "absent"
            return [*missing, meet] if absent else missing
        time.sleep(SETTLE_S)
        return missing

    def play(self, *, rate: float = 1.0, start_ns: int = 0, stop_ns: int = 0) -> None:
        """Publish everything between two log times, `rate` times as fast as it was recorded; returns when done."""
        first_ns = start_ns or self.bag.start_ns
        began = time.monotonic()
        for topic, _, log_ns, data in self.bag.raw(start_ns, stop_ns):
            publisher = self._topics.get(topic)
            if publisher is None:
                continue
            due = began + (log_ns - first_ns) / SECOND_NS / rate
            self._sleep_until(due, began, first_ns, rate)
            self.worst_late_s = max(self.worst_late_s, time.monotonic() - due)
            publisher.publish(data)
            self.sent[topic] += 1
        self._tick(stop_ns or self.bag.end_ns)
        for publisher in self._topics.values():
            publisher.wait_for_all_acked(rclpy.duration.Duration(seconds=5.0))

    def _sleep_until(self, due: float, began: float, first_ns: int, rate: float) -> None:
        """Sleep until `due` (time.monotonic) while the clock ticks."""
        while True:
            now = time.monotonic()
            self._tick(first_ns + round((min(now, due) - began) * rate * SECOND_NS))
            if now >= due:
                return
            time.sleep(min(due - now, 1 / CLOCK_HZ))

    _last_tick_s = 0.0

    def _tick(self, now_ns: int) -> None:
        if self._clock_publisher is None or (time.monotonic() - self._last_tick_s < 1 / CLOCK_HZ):
            return
        self._last_tick_s = time.monotonic()
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(now_ns, SECOND_NS)
        self._clock_publisher.publish(message)


def _message_type(name: str) -> Any:
    package, _, cls = name.replace("/msg/", "/ /").partition("/ /")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), cls)
    except (ModuleNotFoundError, AttributeError):
        return None


def prepare_transport(bag: Bag) -> None:
    """Let this process publish large messages, unless the user has chosen a profile. Must run before rclpy.init."""
    if any(os.environ.get(name) for name in PROFILE_VARIABLES):
        return
    largest = max((len(data) for _, _, _, data in bag.raw(stop_ns=bag.start_ns + SECOND_NS)), default=0)
    profile = _profile()
    if largest > LARGE_MESSAGE_BYTES and profile is not None:
        os.environ[PROFILE_VARIABLES[1]] = os.environ[PROFILE_VARIABLES[0]] = str(profile)


def _profile() -> Path | None:
    name = "fastdds_camera.xml"
    places = [Path(__file__).parents[2] / "config" / name, Path(sys.prefix) / "share/salmonn_node/config" / name]
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    places += [Path(prefix) / "share/salmonn_node/config" / name for prefix in prefixes if prefix]
    return next((place for place in places if place.is_file()), None)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and play a bag; returns the exit status."""
    parser = argparse.ArgumentParser(prog="salmonn bag play", description=__doc__)
    add_play_arguments(parser)
    return run_player(parser.parse_args(argv))


def run_player(args: argparse.Namespace) -> int:
    """Play one bag: 0 played, 2 bad arguments or no bag, 3 nobody listens, 130 interrupted."""
    if args.rate <= 0 or args.start < 0 or args.duration < 0 or args.loop < 1:
        print(
            "salmonn bag play: --rate and --loop must be positive, --start and --duration not negative", file=sys.stderr
        )
        return 2
    try:
        bag = Bag(args.bag)
    except ValueError as error:
        print(f"salmonn bag play: {error}", file=sys.stderr)
        return 2
    with bag:
        for note in bag.notes:
            print(f"salmonn bag play: {note}", file=sys.stderr)
        prepare_transport(bag)
        remove_empty_ports()
        rclpy.init()
        player = BagPlayer(bag, topics=args.topics, clock=not args.no_clock)
        start_ns = bag.start_ns + round(args.start * SECOND_NS)
        stop_ns = start_ns + round(args.duration * SECOND_NS) if args.duration else 0
        try:
            missing = player.wait_for_listeners(args.wait_for, args.wait_s, args.meet)
            if missing:
                print(f"salmonn bag play: nobody listens to {', '.join(missing)}", file=sys.stderr)
                return 3
            for _ in range(args.loop):
                player.play(rate=args.rate, start_ns=start_ns, stop_ns=stop_ns)
            if args.report is not None:
                args.report.write_text(json.dumps(player.sent))
            print(f"played {player.sent.total()} messages, at most {1e3 * player.worst_late_s:.0f} ms late", flush=True)
        except (KeyboardInterrupt, ExternalShutdownException):
            return 130
        finally:
            player.destroy_node()
            rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
