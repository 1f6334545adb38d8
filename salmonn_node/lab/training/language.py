"""Stage 3: the language model learns to answer, and to point at what the answer rests on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from salmonn_node.lab.training.lessons import Lesson, lesson, some, whole_view
from salmonn_node.lab.training.loop import Figures, Plan
from salmonn_node.lab.training.packing import Packed, hidden_states, pack
from salmonn_node.lab.training.plans import LessonPlan
from salmonn_node.lab.training.streams import Bank
from salmonn_node.model.network import Network
from salmonn_node.model.tokenizer import FileTokenizer

PLAN = Plan("language", steps=1300, rate=3e-3, warmup=100)
ROWS = 5_000  # rows of a batch, padding included
NOISE = 0.1
POINTER = 1.0
# Kinds whose evidence is to match from end to end: its length, or how many it is, is the answer.
WHOLE = ("how_long", "count")
Source = TypeVar("Source")
Change = Callable[[Lesson, np.random.Generator], Lesson]
# Kinds that are learned last: few of their questions can be answered, or the answer is spread over several tokens.
WEIGHTS = {
    "seen_when_heard": 4.0, "what_was_said": 3.0, "how_long": 2.0, "count": 3.0, "order": 2.0, "colour": 1.5,
    "existence": 2.5, "room": 1.5,
}  # fmt: skip
# What can be answered counts so much more than what cannot: else it is safest to abstain.
ANSWERABLE = 1.3


def modules(network: Network) -> nn.ModuleDict:
    """What this stage trains."""
    assert network.evidence is not None
    return nn.ModuleDict({"language": network.language, "evidence": network.evidence})


def planned(
    plan: LessonPlan, bank: Bank, network: Network, tokenizer: FileTokenizer, rng: np.random.Generator | None = None
) -> Lesson:
    """A plan's lesson: its stream whole in memory; with `rng` some of its questions, and moved pictures."""
    view = whole_view(bank.stream(plan.pieces, rng), network.config, tokenizer)
    asked = plan.asked if rng is None else some(plan.asked, rng)
    return lesson(view, asked, network.config, tokenizer)


class Batches:
    """Plans of like length together, about ROWS rows a batch; a batch depends on the step alone.

    Args:
        plans: to draw from.
        bank: their streams.
        network: whose configuration the prompts have.
        tokenizer: of the network.
        rows: of a batch, at most.
        change: what is done to each lesson before it is packed; by default nothing.
    """

    def __init__(
        self,
        plans: Sequence[LessonPlan],
        bank: Bank,
        network: Network,
        tokenizer: FileTokenizer,
        rows: int = ROWS,
        change: Change = lambda lesson, rng: lesson,
    ) -> None:
        self.plans = sorted(plans, key=lambda p: p.seconds)
        self.make = lambda plan, rng: change(planned(plan, bank, network, tokenizer, rng), rng)
        self.rows = rows

    def __call__(self, step: int) -> Packed:
        """The batch of a step."""
        rng = np.random.default_rng([PLAN.seed, 3, step])
        return filled(self.plans, lambda plan: self.make(plan, rng), 60, rng, self.rows)


def filled(
    sources: Sequence[Source], make: Callable[[Source], Lesson], reach: int, rng: np.random.Generator, rows: int
) -> Packed:
    """A batch of at most `rows` rows, padding included, of sources up to `reach` places from a random one."""
    middle = int(rng.integers(len(sources)))
    lessons: list[Lesson] = []
    longest = 0
    while True:
        near = int(np.clip(middle + rng.integers(-reach, reach + 1), 0, len(sources) - 1))
        made = make(sources[near])
        longest = max(longest, made.rows)
        if lessons and longest * (len(lessons) + 1) > rows:
            return pack(lessons)
        lessons.append(made)


def loss_of(
    network: Network,
    packed: Packed,
    *,
    noise: float = NOISE,
    weights: Mapping[str, float] | None = None,
) -> tuple[Tensor, Figures]:
    """Cross-entropy of the answers (mean over questions) and of the pointer at the answer's start.

    Args:
        network: in training.
        packed: the batch.
        noise: on memory tokens.
        weights: of some kinds, where they can be answered; then ANSWERABLE for the others. By default all count alike.
    """
    hidden = hidden_states(network, packed, noise if network.training else 0.0)
    answers: list[Tensor] = []
    points: list[Tensor] = []
    right: list[float] = []
    hits: list[float] = []
    for b, asked in enumerate(packed.questions):
        states = [hidden[b, q.first - 1 : q.first - 1 + len(q.targets)] for q in asked]
        sizes = [len(s) for s in states]
        stacked = torch.cat(states)
        assert network.evidence is not None
        pointing = network.evidence(stacked, hidden[b, packed.memory_rows[b]], packed.frames[b])
        logits = network.language.logits(stacked + pointing.context)
        targets = torch.cat([q.targets for q in asked])
        losses = functional.cross_entropy(logits, targets, reduction="none").split(sizes)
        guesses = (logits.argmax(-1) == targets).split(sizes)
        starts = torch.tensor([0, *sizes[:-1]]).cumsum(0)
        place = _places(packed.memory_numbers[b])
        for q, loss, guess, start in zip(asked, losses, guesses, starts.tolist(), strict=True):
            known = q.asked.answerable and len(q.evidence) > 0
            weight = weights.get(q.asked.kind, ANSWERABLE) if weights is not None and known else 1.0
            answers.append(weight * loss.mean())
            mass = pointing.weights[start, place[q.evidence]].sum() if len(q.evidence) else pointing.null[start]
            point = -torch.log(mass.clamp_min(1e-6))
            if q.asked.kind in WHOLE and len(q.evidence):
                point = point - functional.logsigmoid(pointing.match[start, place[q.evidence]]).mean()
            points.append(weight * point)
            right.append(float(guess.all()))
            hits.append(float(mass.detach() > 0.5))
    answer, point = torch.stack(answers).mean(), torch.stack(points).mean()
    figures = {"answer": float(answer.detach()), "pointer": float(point.detach())}
    return answer + POINTER * point, figures | {"right": float(np.mean(right)), "hit": float(np.mean(hits))}


def by_kind(network: Network, lessons: Sequence[Lesson]) -> dict[str, tuple[float, float, int]]:
    """For each kind (answerable, and "kind/not"): share of whole answers right, pointer mass above half, and how many.

    Answers are judged token by token given the right ones before, which is what greedy decoding sees when right.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    was = network.training
    network.eval()
    for made in lessons:
        packed = pack([made])
        with torch.no_grad():
            rows = judged(network, packed)
        for asked, right, hit in rows:
            found.setdefault(asked.kind + ("" if asked.answerable else "/not"), []).append((right, hit))
    network.train(was)
    return {
        kind: (float(np.mean([r for r, _ in v])), float(np.mean([h for _, h in v])), len(v))
        for kind, v in sorted(found.items())
    }


def summary(kinds: dict[str, tuple[float, float, int]]) -> Figures:
    """Over all kinds: answers right and pointers on the evidence, of answerable questions and of the others."""
    found = Figures()
    for name, wanted in (("answerable", False), ("unanswerable", True)):
        rows = [row for kind, row in kinds.items() if kind.endswith("/not") == wanted]
        count = max(1, sum(n for *_, n in rows))
        found[f"{name}_right"] = sum(right * n for right, _, n in rows) / count
        found[f"{name}_hit"] = sum(hit * n for _, hit, n in rows) / count
    return found


def judged(network: Network, packed: Packed) -> list[tuple[object, float, float]]:
    """(question, 1 when every token of its answer is the likeliest, 1 when the pointer's mass is on its evidence)."""
    hidden = hidden_states(network, packed)
    out = []
    assert network.evidence is not None
    for b, asked in enumerate(packed.questions):
        place = _places(packed.memory_numbers[b])
        memory = hidden[b, packed.memory_rows[b]]
        for q in asked:
            states = hidden[b, q.first - 1 : q.first - 1 + len(q.targets)]
            pointing = network.evidence(states, memory, packed.frames[b])
            logits = network.language.logits(states + pointing.context)
            mass = pointing.weights[0, place[q.evidence]].sum() if len(q.evidence) else pointing.null[0]
            out.append((q.asked, float((logits.argmax(-1) == q.targets).all()), float(mass > 0.5)))
    return out


def _places(numbers: Tensor) -> Tensor:
    """Where in a prompt's order the memory token of each number in the view stands."""
    place = torch.zeros(int(numbers.max()) + 1, dtype=torch.int64)
    place[numbers] = torch.arange(len(numbers))
    return place
