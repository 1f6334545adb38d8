"""Work folder of a training run: its worlds, finished stages, and networks with trained weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from salmonn_node.lab.training import audio, bank, language, loop, memory, recall, vision
from salmonn_node.lab.training.sizes import network_config, tokenizer
from salmonn_node.lab.training.streams import Bank, Pieces, read_bank
from salmonn_node.lab.world.shards import Shard, read_truth
from salmonn_node.lab.world.truth import Truth
from salmonn_node.model.network import Network

SEED = 1
REHEARSED_WORLDS, REHEARSED_STEPS, REHEARSED_COUNT = 2, 4, 4


class Work:
    """Work folder of a training run.

    Args:
        folder: folder for everything: shards, tokens, plans, states.
        seed: seed of the weights.
        rehearsal: run every stage on little data for a few steps, without gates. It takes minutes, and shows whether a
            run of hours would complete.
    """

    def __init__(self, folder: Path, seed: int = SEED, rehearsal: bool = False) -> None:
        self.folder, self.states, self.seed, self.rehearsal = folder, folder / "work", seed, rehearsal
        sets = (bank.TRAIN, bank.CALIBRATE, bank.HELD_OUT)
        if rehearsal:
            sets = tuple(replace(s, count=REHEARSED_WORLDS, sparse_every=2) for s in sets)  # type: ignore[assignment]
        self.train, self.calibrate, self.held_out = sets
        self.config, self.tokenizer = network_config(), tokenizer()
        self.states.mkdir(parents=True, exist_ok=True)

    def plan(self, plan: loop.Plan) -> loop.Plan:
        """Return the plan of a stage, shortened in a rehearsal."""
        return replace(plan, steps=REHEARSED_STEPS, warmup=1) if self.rehearsal else plan

    def count(self, number: int) -> int:
        """Return the number, reduced in a rehearsal."""
        return min(number, REHEARSED_COUNT) if self.rehearsal else number

    def network(self, *stages: str) -> Network:
        """Make a network with the trained weights of these stages."""
        network = Network(self.config)
        network.initialise(self.seed)
        assert network.ttt is not None
        assert network.recall is not None
        with torch.no_grad():
            # Close the gate of the token path, because fast weights in the tokens gained nothing at this size.
            network.ttt.gating_alpha.zero_()
            network.recall.gate.fill_(0.5)
        for stage in stages:
            if stage == "encoders":
                state = torch.load(self.states / "encoders.pt", weights_only=True)
                network.vision.load_state_dict(state["vision"])
                assert network.audio is not None
                network.audio.load_state_dict(state["audio"])
                continue
            state = torch.load(self.states / f"{stage}.pt", weights_only=True)["modules"]
            MODULES[stage](network).load_state_dict(state)
        return network

    def shards(self, worlds: bank.WorldSet, limit: int = 0) -> list[Shard]:
        """Load the rendered worlds of a set."""
        return list(itertools.islice(bank.shards(self.folder, worlds), limit or None))

    def bank(self, worlds: bank.WorldSet, limit: int = 0, twice: bool = False, moved: bool = False) -> Bank:
        """Load the encoded worlds of a set. `twice` adds mirrored ones, `moved` adds moved pictures."""
        return read_bank(self.folder, worlds, limit=limit, twice=twice, moved=moved)

    def stored(self, name: str, source: Bank, numbers: range, span_s: tuple[int, int]) -> list[memory.StoredLesson]:
        """Load the lessons of these streams. Makes them at the first call."""
        path = self.folder / "plans" / f"{name}.pt"
        if not path.exists():
            pieces = Pieces([s.truth for s in source.streams], source.dense)
            made = (memory.lessons_of(i, source, pieces, self.config, self.tokenizer, span_s) for i in numbers)
            memory.write(path, list(itertools.chain.from_iterable(made)))
        return memory.read(path)

    def truths(self, worlds: bank.WorldSet) -> tuple[list[Truth], Pieces]:
        """Load the truths of a set, and make a `Pieces` that draws from them."""
        truths = [read_truth(bank.shard_path(self.folder, worlds, seed)) for seed, _ in worlds.worlds()]
        return truths, Pieces(truths, [dense for _, dense in worlds.worlds()])


MODULES: dict[str, Callable[[Network], torch.nn.ModuleDict]] = {
    "vision": vision.modules,
    "audio": audio.modules,
    "language": language.modules,
    "recall": recall.modules,
    "memory": language.modules,
    "further": language.modules,
}
