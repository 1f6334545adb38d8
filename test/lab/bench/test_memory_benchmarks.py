"""The benchmarks of the memory, small: what they claim beside the figures holds."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from salmonn_node.commands import bench_arguments
from salmonn_node.lab.bench import discard, hours, token_memory


@pytest.mark.parametrize("rule", ["released", "paper"])
def test_all_ways_keep_the_same_tokens_and_ours_computes_less(rule: str) -> None:
    for row in token_memory.measure(1024, 256, 16, 3, rule, steps=3):  # raises where the kept sets differ
        assert row["similarities"] < 1024 + 256 - 1
        assert row["bytes_written"] == 256 * 64 * 4
        assert row["bytes_read"] < token_memory.release_bytes(1024, 256, 64) / 4


def test_place_holds_more_of_a_still_hour_than_raster_rules() -> None:
    scene = discard.Scene("still", 3600, 0, events=12)
    shares = discard.run_scene(scene, budget=700, step=200, seed=0, patches=120)
    assert shares["place"] == 1.0
    assert shares["place"] > max(shares[rule] for rule in ("paper", "released", "recent", "fifo"))


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench_arguments.hours(parser)
    return parser.parse_args(given)


def check_hours(args: argparse.Namespace) -> None:
    for figures in hours.run(args).values():
        assert figures["finite"]
        assert figures["full_after_patches"] > 0
        assert figures["bytes_slope_per_patch"] == 0
        assert figures["bytes_at_end"] == figures["bytes_when_full"]
        norms = torch.tensor(figures["norms"])
        assert bool(torch.isfinite(norms).all())


def test_bytes_stay_constant_from_the_first_full_budget_on(tmp_path: Path) -> None:
    small = ("--frames", "400", "--mini-batch", "64", "--visual-budget", "400", "--audio-budget", "100")
    check_hours(arguments(*small, "--optimizers", "sgd", "hf", "--plot", str(tmp_path / "norms.svg")))
    assert (tmp_path / "norms.svg").read_text().count("<polyline") == 4


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_three_hours_of_frames() -> None:
    check_hours(arguments())
