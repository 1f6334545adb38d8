"""Ten thousand malformed messages of all kinds: no crash, and every one of them is counted."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from salmonn_node.client import Memory
from salmonn_node.stream.answers import ErrorCode

from .harness import PATIENCE_S, NodeProcess, Robot
from .test_bad_input import BAD_MESSAGES, good, publisher

pytestmark = [pytest.mark.ros, pytest.mark.full]

MESSAGES = 10_000
BURST = 40  # fewer than the subscriptions' depth, so that nothing is lost before it arrives


@pytest.mark.timeout(900)
def test_flood_is_counted_to_the_last_message(robot: Robot, node: NodeProcess, memory: Memory) -> None:
    # Out-of-order is judged against what came before, and stamps of this flood do not grow: left to the single tests.
    kinds = [entry for entry in BAD_MESSAGES if entry[1] != "stamp_out_of_order"]
    before = {(source, reason): robot.count(f"input {source}", f"dropped.{reason}") for source, reason, _ in kinds}
    received = {source: robot.count(f"input {source}", "received") for source, _, _ in kinds}
    choose = random.Random(7)
    sent: Counter[tuple[str, str]] = Counter()
    while sum(sent.values()) < MESSAGES:
        stamp = robot.step(0.01)
        for _ in range(BURST):
            source, reason, make = choose.choice(kinds)
            publisher(robot, source).publish(make(robot, stamp))
            sent[source, reason] += 1
        arrived = {s: sum(n for (source, _), n in sent.items() if source == s) for s in received}
        robot.wait(
            lambda arrived=arrived: all(
                robot.count(f"input {s}", "received") >= received[s] + n for s, n in arrived.items()
            ),
            PATIENCE_S,
            "the burst has arrived",
        )
    for (source, reason), n in sent.items():
        robot.wait(
            lambda source=source, reason=reason, n=n: (
                robot.count(f"input {source}", f"dropped.{reason}") == before[source, reason] + n
            ),
            PATIENCE_S,
            f"{n} {reason} of {source} are counted",
        )
    assert node.alive()
    robot.step(1.0)
    taken = robot.steady("input camera", "queued")
    robot.images.publish(good(robot, "camera", robot.step()))
    robot.wait(
        lambda: robot.count("input camera", "queued") == taken + 1, PATIENCE_S, "a good image is taken afterwards"
    )
    assert memory.ask("say so", timeout_s=PATIENCE_S).error_code == ErrorCode.NONE
