"""The comparison of fast weights over events: every arm runs in its bytes, and the last write is remembered."""

from __future__ import annotations

import argparse

import pytest

from salmonn_node.lab.bench import events


@pytest.fixture(scope="module")
def results() -> dict[str, list[dict[str, object]]]:
    return events.run(argparse.Namespace(seeds=1, events=120, arms=""))


def test_every_arm_is_scored_in_every_regime(results: dict[str, list[dict[str, object]]]) -> None:
    assert len(results["rows"]) == len(events.ARMS) * len(events.REGIMES)
    assert len(events.tables(results)) == len(events.REGIMES)


def test_static_weights_only_guess_and_a_step_an_event_remembers(results: dict[str, list[dict[str, object]]]) -> None:
    row = {r["arm"]: r for r in results["rows"] if (r["things"], r["bytes"], r["error"]) == (400, 100_000, 0.0)}

    assert row["static"]["changing"][0] < 0.3  # type: ignore[index]
    assert row["hf, each event"]["changing"][0] > row["static"]["changing"][0]  # type: ignore[index]


def test_a_stream_is_the_same_for_the_same_seed() -> None:
    first, again = (events.stream(3, 20, 50, 0.2) for _ in range(2))

    assert bool((first.keys == again.keys).all())
    assert bool((first.changing == again.changing).all())
