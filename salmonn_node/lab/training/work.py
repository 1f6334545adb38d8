"""A training run's folder: which worlds it has, what of it is made already, and networks with what was learned."""

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
    """A training run's folder.

    Args:
        folder: for everything: shards, tokens, plans, states.
        seed: of the weights.
        rehearsal: every stage on a little data, for a few steps and without gates: minutes in which to find out
            whether hours would run to their end.
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
        """A stage's plan, or its rehearsal."""
        return replace(plan, steps=REHEARSED_STEPS, warmup=1) if self.rehearsal else plan

    def count(self, number: int) -> int:
        """So many, or as few as a rehearsal needs."""
        return min(number, REHEARSED_COUNT) if self.rehearsal else number

    def network(self, *stages: str) -> Network:
        """A network with the results of these stages."""
        network = Network(self.config)
        network.initialise(self.seed)
        assert network.ttt is not None
        assert network.recall is not None
        with torch.no_grad():
            # The gate of the token path is shut: at this size fast weights in the tokens gained nothing.
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
        """Rendered worlds of a set."""
        return list(itertools.islice(bank.shards(self.folder, worlds), limit or None))

    def bank(self, worlds: bank.WorldSet, limit: int = 0, twice: bool = False, moved: bool = False) -> Bank:
        """Encoded worlds of a set; `twice`: and in a mirror; `moved`: and with moved pictures."""
        return read_bank(self.folder, worlds, limit=limit, twice=twice, moved=moved)

    def stored(self, name: str, source: Bank, numbers: range, span_s: tuple[int, int]) -> list[memory.StoredLesson]:
        """Lessons of these streams, made once."""
        path = self.folder / "plans" / f"{name}.pt"
        if not path.exists():
            pieces = Pieces([s.truth for s in source.streams], source.dense)
            made = (memory.lessons_of(i, source, pieces, self.config, self.tokenizer, span_s) for i in numbers)
            memory.write(path, list(itertools.chain.from_iterable(made)))
        return memory.read(path)

    def truths(self, worlds: bank.WorldSet) -> tuple[list[Truth], Pieces]:
        """Truths of a set, and what draws pieces of them."""
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
