"""The stand-in: it resumes bit for bit, loads as a checkpoint without a head, and is asked whether it was shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lab.training.banked import tokens
from safetensors.torch import save_file

from salmonn_node.cli import main
from salmonn_node.lab.training import bank, standin
from salmonn_node.lab.training.standin import StandinWork
from salmonn_node.lab.training.streams import joined
from salmonn_node.lab.world.shards import Shard, write_shard
from salmonn_node.model.checkpoint import load


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standin, "WORLDS", 2)
    monkeypatch.setattr(standin, "PLANS", 4)
    monkeypatch.setattr(standin, "ROWS", 700)
    plan = replace(standin.PLAN, steps=4, warmup=1, log_every=1, save_every=2)
    monkeypatch.setattr(standin, "PLAN", plan)


def prepared(folder: Path) -> StandinWork:
    """A work folder whose worlds are rendered and encoded: the demo's truth, and random tokens."""
    work = StandinWork(folder, seed=3)
    for seed, dense in work.train.worlds():
        made = joined([tokens(80, seed), tokens(80, seed + 100)])
        shard = bank.shard_path(folder, work.train, seed)
        shard.parent.mkdir(parents=True, exist_ok=True)
        frames, sound = np.zeros((160, 8, 8, 3), np.uint8), np.zeros((160, 0), np.int16)
        write_shard(shard, Shard(frames, sound, made.truth, seed, dense))
        path = folder / "tokens" / work.train.name / f"{seed}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"z": made.z, "deepstack": made.deepstack, "audio": made.audio}, str(path))
    list(standin.plan(work))
    return work


def weights_of(work: StandinWork) -> dict[str, torch.Tensor]:
    return torch.load(work.states / f"{standin.PLAN.name}.pt", weights_only=True)["modules"]


def test_it_resumes_bit_for_bit_and_becomes_a_checkpoint(small: None, tmp_path: Path) -> None:
    whole = prepared(tmp_path / "whole")
    assert [line["step"] for line in standin.answer(whole)] == [1, 2, 3, 4]

    cut = StandinWork(tmp_path / "whole", seed=3)
    cut.states = tmp_path / "cut"
    lines = standin.answer(cut)
    assert [next(lines)["step"] for _ in range(3)] == [1, 2, 3]
    lines.close()  # as a kill after the third step, of which the second was the last to be saved
    assert [line["step"] for line in standin.answer(cut)] == [3, 4]
    wanted, found = weights_of(whole), weights_of(cut)
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)

    model = load(str(standin.write_checkpoint(whole, tmp_path / "made")))
    assert (model.network.evidence, model.checkpoint.name, model.checkpoint.trained) == (None, "standin", True)
    assert model.config.chat.asks_whether_shown("Was it red?") == "Was it red? Was it there?"
    assert model.config.chat.unknown("unknown")
    head = model.network.language.state_dict()
    assert torch.equal(head["lm_head.weight"], wanted["language.lm_head.weight"])
    assert not torch.equal(head["lm_head.weight"], standin.start().network.language.lm_head.weight)


def test_a_rehearsal_is_not_called_trained(small: None, tmp_path: Path) -> None:
    work = prepared(tmp_path)
    list(standin.answer(work))
    work.rehearsal = True
    assert not load(str(standin.write_checkpoint(work, tmp_path / "made"))).checkpoint.trained


def test_the_number_of_steps_can_be_chosen_for_the_stand_in_only(tmp_path: Path, capsys) -> None:
    assert StandinWork(tmp_path, steps=7).plan(standin.PLAN).steps == 7
    assert StandinWork(tmp_path).plan(standin.PLAN) == standin.PLAN
    for flags in (["tiny", "--steps", "7"], ["standin", "--steps", "0"]):
        assert main(["train", *flags, "--work", str(tmp_path)]) == 2
        assert "--steps is for standin" in capsys.readouterr().err
