"""Stage 5: train the fast weights to hold facts, and the question to query them, with no other access to the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from salmonn_node.lab.training.language import planned
from salmonn_node.lab.training.lessons import Lesson
from salmonn_node.lab.training.loop import Figures, Plan
from salmonn_node.lab.training.packing import hidden_states, pack
from salmonn_node.lab.training.plans import LessonPlan
from salmonn_node.lab.training.sizes import MINI_BATCH
from salmonn_node.lab.training.streams import Bank
from salmonn_node.model.network import Network
from salmonn_node.model.tokenizer import FileTokenizer
from salmonn_node.ttt.layer import TTTLayer
from salmonn_node.ttt.state import TTTState

PLAN = Plan("recall", steps=1500, rate=2e-3, warmup=50)
# Kinds whose answer is in a single token. Times and robot positions need the token memory.
KINDS = ("colour", "room", "existence", "where_object", "change")
STATE = ("W1", "b1", "W2", "b2", "damping", "lag_rows")
STREAMS = 6
CARRY = 0.7  # share of steps that continue from the detached weights of the previous step


def modules(network: Network) -> nn.ModuleDict:
    """Return the modules that this stage trains. The language model is frozen."""
    assert network.ttt is not None
    assert network.recall is not None
    return nn.ModuleDict({"ttt": network.ttt, "recall": network.recall})


@dataclass(frozen=True, eq=False)
class RecallSegment:
    """Streams of equal length and their questions.

    Attributes:
        tokens: (B, L, D), complete mini-batches.
        lessons: lessons whose memory holds only the last patch of the stream.
    """

    tokens: Tensor
    lessons: list[Lesson]


def emptied(lesson: Lesson, patches: int = 1) -> Lesson:
    """Keep only the last patches in the memory of a lesson. Anything earlier must be recalled."""
    view = lesson.view
    assert view.visual is not None
    keep = view.visual.patch >= int(view.visual.patch.max()) - patches + 1
    numbers = keep.nonzero()[:, 0]
    prefix = lesson.prefix
    left = (prefix.memory < 0) | torch.isin(prefix.memory, numbers)
    blocks = torch.isin(prefix.block, prefix.block[torch.isin(prefix.memory, numbers)]) | (prefix.block < 0)
    rows = left & blocks
    return replace(
        lesson,
        prefix=replace(
            prefix, ids=prefix.ids[rows], positions=prefix.positions[:, rows], memory=prefix.memory[rows],
            block=prefix.block[rows],
        ),
    )  # fmt: skip


def segment(
    plans: Sequence[LessonPlan], step: int, bank: Bank, network: Network, tokenizer: FileTokenizer, seed: int
) -> RecallSegment:
    """Return the streams of a step. They have similar lengths and are cut to complete mini-batches from their end."""
    rng = np.random.default_rng([seed, 4, step])
    middle = int(rng.integers(len(plans)))
    chosen = [plans[int(np.clip(middle + rng.integers(-40, 41), 0, len(plans) - 1))] for _ in range(STREAMS)]
    streams = [bank.stream(plan.pieces).z.flatten(0, 1) for plan in chosen]
    length = max(MINI_BATCH, min(len(s) for s in streams) // MINI_BATCH * MINI_BATCH)
    rows = [torch.cat([s[: max(0, length - len(s))], s])[-length:] for s in streams]
    lessons = []
    for plan in chosen:
        asked = tuple(a for a in plan.asked if a.kind in KINDS)
        wanted = replace(plan, asked=asked or plan.asked)
        lessons.append(emptied(planned(wanted, bank, network, tokenizer)))
    return RecallSegment(torch.stack(rows), lessons)


def carried(layer: TTTLayer, state: TTTState | None, batch: int) -> TTTState:
    """Return a state to train from: a fresh one, or one with the detached weights of an earlier state."""
    fresh = layer.init_state(batch, differentiable=True)
    if state is None:
        return fresh
    for name in STATE:
        setattr(fresh, name, getattr(state, name).detach().clone())
    fresh.rows, fresh.updates = state.rows, state.updates
    return fresh


def streamed(layer: TTTLayer, tokens: Tensor, state: TTTState) -> TTTState:
    """Observe tokens (B, L, D). Gradients flow if the state is differentiable."""
    places = torch.zeros(*tokens.shape[:2], 3, dtype=torch.int64)
    layer.observe(tokens, places, state)
    return state


def one_of(state: TTTState, number: int) -> TTTState:
    """Return the state of one stream."""
    parts = {name: getattr(state, name)[number : number + 1] for name in STATE}
    return replace(state, **parts, chunks=[])


def loss_of(network: Network, batch: RecallSegment, state: TTTState) -> tuple[Tensor, Figures]:
    """Return the cross-entropy of the answers, read from the fast weights."""
    packed = pack(batch.lessons)
    with torch.no_grad():
        hidden = hidden_states(network, packed)
    losses, right, plain = [], [], []
    assert network.evidence is not None
    assert network.recall is not None
    assert network.ttt is not None
    for b, asked in enumerate(packed.questions):
        mine = one_of(state, b)
        memory = hidden[b, packed.memory_rows[b]]
        for q in asked:
            states = hidden[b, q.first - 1 : q.first - 1 + len(q.targets)]
            with torch.no_grad():
                context = network.evidence(states, memory, packed.frames[b]).context
                plain.append(float((network.language.logits(states + context).argmax(-1) == q.targets).all()))
            added = network.recall(hidden[b, q.start + 1 : q.first], network.ttt, mine)
            logits = network.language.logits(states + context + added)
            losses.append(functional.cross_entropy(logits, q.targets))
            right.append(float((logits.argmax(-1) == q.targets).all()))
    loss = torch.stack(losses).mean()
    return loss, {"right": float(np.mean(right)), "without": float(np.mean(plain))}


def freeze_all_but(network: Network) -> None:
    """Freeze all modules except those of this stage. The gate of the token path stays closed."""
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    for parameter in modules(network).parameters():
        parameter.requires_grad_(True)
    assert network.ttt is not None
    network.ttt.gating_alpha.requires_grad_(False)


class RecallTrainer:
    """Batches and losses of this stage. Fast weights are carried from step to step.

    Args:
        network: network whose fast weights and read-out are trained.
        plans, unseen: plans for training and for scoring, in order of length.
        bank, held: their streams.
        tokenizer: tokenizer of the network.
        seed: seed of the draws.
    """

    def __init__(
        self,
        network: Network,
        plans: Sequence[LessonPlan],
        unseen: Sequence[LessonPlan],
        bank: Bank,
        held: Bank,
        tokenizer: FileTokenizer,
        seed: int,
    ) -> None:
        self.network, self.plans, self.unseen = network, plans, unseen
        self.bank, self.held, self.tokenizer, self.seed = bank, held, tokenizer, seed
        self._last: TTTState | None = None

    def batch(self, step: int) -> tuple[int, RecallSegment]:
        """Return the streams of a step."""
        return step, segment(self.plans, step, self.bank, self.network, self.tokenizer, self.seed)

    def loss(self, batch: object) -> tuple[Tensor, Figures]:
        """Return the loss of a step. Most steps continue from the weights of the previous step."""
        assert isinstance(batch, tuple)
        step, streams = batch
        assert self.network.ttt is not None
        carry = np.random.default_rng([self.seed, 9, step]).random() < CARRY
        state = carried(self.network.ttt, self._last if carry else None, len(streams.tokens))
        streamed(self.network.ttt, streams.tokens, state)
        self._last = state
        return loss_of(self.network, streams, state)

    def held_out(self, segments: int = 12) -> Figures:
        """Shares of right answers on held-out worlds, with and without the read-out."""
        assert self.network.ttt is not None
        found: dict[str, list[float]] = {}
        for number in range(segments):
            streams = segment(self.unseen, number, self.held, self.network, self.tokenizer, 77)
            state = self.network.ttt.init_state(len(streams.tokens))
            streamed(self.network.ttt, streams.tokens, state)
            for name, value in loss_of(self.network, streams, state)[1].items():
                found.setdefault(name, []).append(value)
        return {name: float(np.mean(values)) for name, values in found.items()}
