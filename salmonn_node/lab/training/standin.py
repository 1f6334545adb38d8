"""Stand-in: the tiny network without its evidence head, trained on until it answers in words alone.

It stands for networks that were never taught to point, such as a stock Qwen3-VL. Its evidence, its abstention and its
calibration can be scored on worlds whose truth is known. Without this training, the tiny network cannot answer without
its head: it says "unknown" to everything.

Only the answers' texts teach it. No label of evidence is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from salmonn_node.lab.training import bank, loop, plans
from salmonn_node.lab.training.language import ANSWERABLE, WEIGHTS, Batches
from salmonn_node.lab.training.lessons import Lesson, thinned
from salmonn_node.lab.training.loop import Figures, Plan
from salmonn_node.lab.training.packing import Packed, hidden_states
from salmonn_node.lab.training.streams import read_bank
from salmonn_node.lab.training.work import Work
from salmonn_node.model.checkpoint import load, save
from salmonn_node.model.checkpoint_cache import TINY
from salmonn_node.model.network import Network
from salmonn_node.model.video_salmonn_s import CheckpointInfo, VideoSalmonnS

FAMILY = "tiny_without_head"
WORLDS, PLANS = 10, 500
# (seconds, share of the plans): up to what the memory holds without dropping anything.
LENGTHS = ((16, 0.15), (32, 0.2), (48, 0.25), (64, 0.25), (96, 0.15))
PLAN = Plan("standin", steps=600, rate=1.5e-3, warmup=15, log_every=10, save_every=40)
ROWS = 2_500  # rows per batch, including padding
NOISE = 0.1
THINNED, THINNEST = 0.3, 0.5  # share of lessons that lose tokens, and the largest share of tokens that one loses
Lines = Iterator[Figures]


class StandinWork(Work):
    """Work folder of the stand-in: fewer worlds than the tiny network's, encoded by the tiny network."""

    def __init__(self, folder: Path, seed: int = 0, rehearsal: bool = False, steps: int | None = None) -> None:
        super().__init__(folder, seed, rehearsal)
        self.train = replace(self.train, count=self.count(WORLDS))
        self.steps = steps

    def plan(self, plan: Plan) -> Plan:
        """Return the plan of a stage, shortened in a rehearsal, or with the wanted number of steps."""
        return super().plan(plan if self.steps is None else replace(plan, steps=self.steps))


def start(**changes: object) -> VideoSalmonnS:
    """Load the tiny network without its evidence head. It has no recall read-out either."""
    return load(TINY, evidence_head=False, recall=False, **changes)


def render(work: Work) -> Lines:
    """Render the training worlds, one small frame per second. Needs OpenGL."""
    yield {"train_shards": float(bank.render(work.folder, work.train))}


def encode(work: Work) -> Lines:
    """Encode the worlds once, with the encoders of the tiny network."""
    found = read_bank(work.folder, work.train, start().network)
    yield {"train_streams": float(len(found.streams))}


def plan(work: Work) -> Lines:
    """Plan which streams to compose and what to ask."""
    path, count = work.folder / "plans" / "standin.jsonl", work.count(PLANS)
    if not path.exists():
        truths, pieces = work.truths(work.train)
        plans.write_plans(path, (plans.plan(i, truths, pieces, lengths_s=LENGTHS) for i in range(count)))
    yield {"plans": float(count)}


def answer(work: Work) -> Lines:
    """Train the language model on answers alone."""
    network = start().network
    for parameter in network.language.parameters():
        parameter.requires_grad_(True)
    yield from loop.run(
        work.plan(PLAN), modules(network), batches_of(work, network), lambda batch: loss_of(network, batch), work.states
    )


def modules(network: Network) -> nn.ModuleDict:
    """Return the modules that are trained."""
    return nn.ModuleDict({"language": network.language})


def batches_of(work: Work, network: Network) -> Callable[[int], Packed]:
    """Return the batch of a step. It depends on the step and the seed only, and seeds the noise of that step too."""
    read = plans.read_plans(work.folder / "plans" / "standin.jsonl")
    tokenizer = work.tokenizer

    def thinner(lesson: Lesson, rng: np.random.Generator) -> Lesson:
        if rng.random() >= THINNED:
            return lesson
        fewer = thinned(lesson, rng.uniform(0.0, THINNEST), tokenizer, rng)
        return fewer if fewer.asked else lesson

    made = Batches(read, work.bank(work.train), network, tokenizer, ROWS, change=thinner)

    def batch(step: int) -> Packed:
        torch.manual_seed(1_000_003 * work.seed + step)
        return made(step)

    return batch


def loss_of(network: Network, packed: Packed) -> tuple[Tensor, Figures]:
    """Cross-entropy of the answers, mean over questions. Answerable questions have the weights of the last stage."""
    hidden = hidden_states(network, packed, NOISE if network.language.training else 0.0)
    asked = [(b, q) for b, questions in enumerate(packed.questions) for q in questions]
    sizes = [len(q.targets) for _, q in asked]
    states = torch.cat([hidden[b, q.first - 1 : q.first - 1 + n] for (b, q), n in zip(asked, sizes, strict=True)])
    targets = torch.cat([q.targets for _, q in asked])
    logits = network.language.logits(states)
    losses = functional.cross_entropy(logits, targets, reduction="none").split(sizes)
    guesses = (logits.detach().argmax(-1) == targets).split(sizes)
    known = [q.asked.answerable and len(q.evidence) > 0 for _, q in asked]
    weights = [WEIGHTS.get(q.asked.kind, ANSWERABLE) if k else 1.0 for (_, q), k in zip(asked, known, strict=True)]
    loss = torch.stack([w * each.mean() for w, each in zip(weights, losses, strict=True)]).mean()
    right: dict[bool, list[float]] = {True: [], False: []}
    for k, guess in zip(known, guesses, strict=True):
        right[k].append(float(guess.all()))
    names = {True: "right", False: "unanswerable_right"}
    return loss, {names[k]: float(np.mean(found)) for k, found in right.items() if found}


def write_checkpoint(work: Work, folder: Path) -> Path:
    """Write the stand-in as a checkpoint without a calibration."""
    begun = start()
    state = torch.load(work.states / f"{PLAN.name}.pt", weights_only=True)["modules"]
    modules(begun.network).load_state_dict(state)
    trained = not work.rehearsal
    info = CheckpointInfo("training", "standin", trained=trained)
    made = VideoSalmonnS(
        begun.config, begun.network, begun.tokenizer, info, begun.event_heads
    )  # answers in words alone, so none from events
    save(made, folder, about={"name": "standin", "trained": trained, "family": FAMILY})
    return folder


STAGES: dict[str, Callable[[Work], Lines]] = {"render": render, "encode": encode, "plan": plan, "answer": answer}
