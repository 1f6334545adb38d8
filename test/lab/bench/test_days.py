"""`salmonn bench days` and `salmonn bench overhead` on a little stream: every part runs, on rendered worlds."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from salmonn_node.lab.bench import days, overhead
from salmonn_node.lab.bench.event_replay import Replay, told
from salmonn_node.lab.training import bank
from salmonn_node.lab.training.bank import WorldSet
from salmonn_node.lab.training.streams import Tokens, read_bank
from salmonn_node.memory.event_memory import BESIDE, EventMemory
from salmonn_node.model.checkpoint import load
from salmonn_node.model.video_salmonn_s import VideoSalmonnS

pytestmark = pytest.mark.full  # worlds are rendered

LITTLE = WorldSet("held_out", 400_000, 2, 2, 48)


@pytest.fixture(scope="module")
def model() -> VideoSalmonnS:
    return load()


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    bank.render(folder, LITTLE)
    return folder


@pytest.fixture(scope="module")
def worlds(model: VideoSalmonnS, work: Path) -> list[Tokens]:
    return list(read_bank(work, LITTLE, model.network).streams)


def test_days_pass_and_both_memories_are_asked(model: VideoSalmonnS, worlds: list[Tokens]) -> None:
    results = days.days(model, worlds[:1], worlds[1], 0.05, 24)
    assert results["days"] == pytest.approx(0.05, abs=0.002)
    assert results["events"] > 100
    assert results["samples"][-1]["event_bytes"] < 90_000
    both = results["days_memory"], results["newest_memory"]
    assert both[0]["recent_n"] == both[1]["recent_n"] > 0
    assert both[0]["recent_n"] + both[0]["never_n"] + both[0]["older_n"] == 24
    assert [table.title for table in days.tables(results)] == ["state", "asked after 0.05 days", "by kind"]


def test_what_comes_again_is_never_twice_the_same_but_the_same_each_run(
    model: VideoSalmonnS, worlds: list[Tokens]
) -> None:
    assert model.event_parts is not None
    heads = model.event_parts.heads
    ended = told(heads, worlds[0])
    memories = [EventMemory(heads, BESIDE) for _ in range(3)]
    for memory, seed in zip(memories, (1, 1, None), strict=True):
        replay = Replay(memory, seed)
        for start in (0, 48):
            replay.add(ended, start)
    mine, again, plain = ([e.key.half().tolist() for e in m.events("visual")] for m in memories)
    assert mine == again != plain
    half = len(plain) // 2
    assert plain[:half] == plain[half : 2 * half]
    assert mine[0] != mine[half]


def test_the_cost_of_events_is_measured_in_turns(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead.bank, "HELD_OUT", LITTLE)
    results = overhead.run(Namespace(work=work, checkpoint="tiny", block=4, rounds=2, questions=6, repeats=1))
    assert results["ingest"]["ms_auto"] > 0
    assert results["first"]["all"]["questions"] == 6
    assert results["first"]["events"]["first_ms_auto"] > 0
    assert len(overhead.tables(results)) == 2
