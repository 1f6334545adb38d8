"""Fact reader: query the TTT layer about a stream of the world, and read the answers with linear heads.

A query is a sum of learned embeddings (kind of question, colour, shape, room). Linear heads read the layer's output.
Nothing else is kept of the stream. Everything but the fast weights is trained by backpropagation through the updates of
a segment.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from salmonn_node.lab.training.facts import ASKED_AFTER, KINDS, UPDATES, Fact, FactSegment
from salmonn_node.lab.training.loop import Figures, Plan
from salmonn_node.lab.training.recall import CARRY, carried, one_of, streamed
from salmonn_node.lab.training.streams import Bank
from salmonn_node.lab.training.vision import COLOUR, ROOM, SHAPE
from salmonn_node.ttt.layer import TTTConfig, TTTLayer
from salmonn_node.ttt.state import TTTState

PLAN = Plan("facts", steps=1000, rate=2e-3, warmup=50)
STREAMS = 8
ANSWERS = {"colour": len(COLOUR) + 1, "room": len(ROOM), "existence": 2}


class FactReader(nn.Module):
    """A TTT layer, its queries, and heads that read what it recalls."""

    def __init__(self, config: TTTConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.ttt = TTTLayer(config)
        self.kind = nn.Embedding(len(KINDS), width)
        self.colour = nn.Embedding(len(COLOUR) + 1, width)
        self.shape = nn.Embedding(len(SHAPE) + 1, width)
        self.room = nn.Embedding(len(ROOM) + 1, width)
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict({kind: nn.Linear(2 * width, count) for kind, count in ANSWERS.items()})

    def asked(self, facts: Sequence[Fact]) -> Tensor:
        """Return the queries, (Q, D)."""
        kinds = torch.tensor([KINDS.index(f.kind) for f in facts])
        words = torch.tensor([f.words for f in facts])
        parts = self.kind(kinds) + self.colour(words[:, 0]) + self.shape(words[:, 1]) + self.room(words[:, 2] + 1)
        return self.norm(parts)

    def forward(self, facts: Sequence[Fact], state: TTTState) -> dict[str, tuple[Tensor, Tensor, list[Fact]]]:
        """Query the state of one stream. Return logits, right answers and facts by kind. Does not change the state."""
        queries = self.asked(facts)
        read = torch.cat([queries, self.ttt.recall(queries, state)], dim=1)
        out = {}
        for kind in KINDS:
            rows = [i for i, f in enumerate(facts) if f.kind == kind]
            if rows:
                mine = [facts[i] for i in rows]
                out[kind] = self.heads[kind](read[rows]), torch.tensor([f.answer for f in mine]), mine
        return out


def tokens_of(chosen: Sequence[FactSegment], bank: Bank, mini_batch: int) -> Tensor:
    """Return the tokens of the segments, (B, UPDATES * m, D)."""
    rows = [bank.stream(s.pieces).z.flatten(0, 1)[: UPDATES * mini_batch] for s in chosen]
    return torch.stack(rows)


def judged(
    reader: FactReader, chosen: Sequence[FactSegment], bank: Bank, state: TTTState
) -> tuple[Tensor, list[tuple[Fact, bool]]]:
    """Observe segments and ask. Return the loss, and the facts with whether each was right. Updates the state."""
    m = reader.ttt.config.mini_batch
    tokens = tokens_of(chosen, bank, m)
    losses, found = [], []
    for before, after in zip((0, *ASKED_AFTER), ASKED_AFTER, strict=False):
        streamed(reader.ttt, tokens[:, before * m : after * m], state)
        for b, segment in enumerate(chosen):
            facts = [f for f in segment.facts if f.after == after]
            if not facts:
                continue
            for logits, answers, mine in reader(facts, one_of(state, b)).values():
                losses.append(functional.cross_entropy(logits, answers, reduction="none"))
                found += list(zip(mine, (logits.argmax(-1) == answers).tolist(), strict=True))
    return torch.cat(losses).mean(), found


class FactTrainer:
    """Batches, loss and scores. Most steps continue with the fast weights of the previous step.

    Args:
        reader: the reader to train.
        segments, bank: training data.
        unseen, held: held-out data.
        seed: seed of the draws.
    """

    def __init__(
        self,
        reader: FactReader,
        segments: Sequence[FactSegment],
        bank: Bank,
        unseen: Sequence[FactSegment],
        held: Bank,
        seed: int,
    ) -> None:
        self.reader, self.segments, self.bank = reader, segments, bank
        self.unseen, self.held, self.seed = unseen, held, seed
        self._last: TTTState | None = None

    def batch(self, step: int) -> tuple[bool, list[FactSegment]]:
        """Return whether the weights continue, and the segments of a step."""
        rng = np.random.default_rng([self.seed, 12, step])
        chosen = [self.segments[i] for i in rng.integers(len(self.segments), size=STREAMS)]
        return bool(rng.random() < CARRY), chosen

    def loss(self, batch: object) -> tuple[Tensor, Figures]:
        """Return the cross-entropy of all facts asked."""
        assert isinstance(batch, tuple)
        carry, chosen = batch
        state = carried(self.reader.ttt, self._last if carry else None, len(chosen))
        loss, found = judged(self.reader, chosen, self.bank, state)
        self._last = state.detach()
        return loss, {"right": float(np.mean([right for _, right in found]))}

    def held_out(self) -> Figures:
        """Shares of right answers at the end of unseen segments, each from fresh weights."""
        found: list[tuple[Fact, bool]] = []
        for at in range(0, len(self.unseen), STREAMS):
            chosen = self.unseen[at : at + STREAMS]
            found += judged(self.reader, chosen, self.held, self.reader.ttt.init_state(len(chosen)))[1]
        return shares([(fact, right) for fact, right in found if fact.after == UPDATES])

    def after_days(self, updates: Sequence[int], probes: int = 6) -> dict[int, float]:
        """Share of right answers about the last segment, after each number of earlier updates.

        Args:
            updates: numbers of updates, ascending.
            probes: number of segments to ask about from there on.
        """
        state = self.reader.ttt.init_state(STREAMS)
        shown, found = 0, {}
        for wanted in updates:
            right: list[bool] = []
            while state.updates < wanted + probes * UPDATES:
                rows = [(shown + i) % len(self.unseen) for i in range(STREAMS)]
                shown += STREAMS
                chosen = [self.unseen[i] for i in rows]
                if state.updates < wanted:
                    tokens = tokens_of(chosen, self.held, self.reader.ttt.config.mini_batch)
                    streamed(self.reader.ttt, tokens, state)
                else:
                    judgements = judged(self.reader, chosen, self.held, state)[1]
                    right += [ok for fact, ok in judgements if fact.after == UPDATES]
            found[wanted] = float(np.mean(right))
        return found


def shares(found: Sequence[tuple[Fact, bool]]) -> Figures:
    """Shares of right answers: overall, by kind, and by updates since the evidence was last seen."""
    out: dict[str, list[bool]] = {}
    for fact, right in found:
        names = ["all", fact.kind] + ([f"age_{fact.age // 2 * 2}"] if 0 <= fact.age < UPDATES else [])
        for name in names:
            out.setdefault(name, []).append(right)
    return {name: float(np.mean(values)) for name, values in sorted(out.items())}
