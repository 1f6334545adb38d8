"""Stage 3: train the language model to answer, and to point at the evidence of the answer."""

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
ROWS = 5_000  # rows per batch, including padding
NOISE = 0.1
POINTER = 1.0
# Kinds whose whole evidence must match, because its length or count is the answer.
WHOLE = ("how_long", "count")
Source = TypeVar("Source")
Change = Callable[[Lesson, np.random.Generator], Lesson]
# Kinds that are learned last: few of their questions are answerable, or the answer spans several tokens.
WEIGHTS = {
    "seen_when_heard": 4.0, "what_was_said": 3.0, "how_long": 2.0, "count": 3.0, "order": 2.0, "colour": 1.5,
    "existence": 2.5, "room": 1.5,
}  # fmt: skip
# Weight of answerable questions. Without it, the network learns that it is safest to abstain.
ANSWERABLE = 1.3


def modules(network: Network) -> nn.ModuleDict:
    """Return the modules that this stage trains."""
    assert network.evidence is not None
    return nn.ModuleDict({"language": network.language, "evidence": network.evidence})


def planned(
    plan: LessonPlan, bank: Bank, network: Network, tokenizer: FileTokenizer, rng: np.random.Generator | None = None
) -> Lesson:
    """Make the lesson of a plan, with its whole stream in memory. `rng` selects questions and moves pictures."""
    view = whole_view(bank.stream(plan.pieces, rng), network.config, tokenizer)
    asked = plan.asked if rng is None else some(plan.asked, rng)
    return lesson(view, asked, network.config, tokenizer)


class Batches:
    """Batches of plans of similar length, about ROWS rows each. A batch depends on the step only.

    Args:
        plans: plans to draw from.
        bank: their streams.
        network: network whose configuration the prompts use.
        tokenizer: tokenizer of the network.
        rows: maximum rows per batch.
        change: function applied to each lesson before packing. Defaults to none.
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
        """Return the batch of a step."""
        rng = np.random.default_rng([PLAN.seed, 3, step])
        return filled(self.plans, lambda plan: self.make(plan, rng), 60, rng, self.rows)


def filled(
    sources: Sequence[Source], make: Callable[[Source], Lesson], reach: int, rng: np.random.Generator, rows: int
) -> Packed:
    """Fill a batch of at most `rows` rows, including padding, with sources within `reach` of a random one."""
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
    """Cross-entropy of the answers (mean over questions), and of the pointer at the start of the answer.

    Args:
        network: the network in training.
        packed: the batch.
        noise: noise on memory tokens.
        weights: weights of answerable questions by kind; ANSWERABLE for other kinds. By default all weights are equal.
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
    """By kind (and "kind/not" for unanswerable): share of right answers, share of right pointers, and the count.

    Answers are judged token by token, given the right previous tokens. Greedy decoding of a right answer sees the same.
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
    """Summarise all kinds: shares of right answers and right pointers, answerable and unanswerable."""
    found = Figures()
    for name, wanted in (("answerable", False), ("unanswerable", True)):
        rows = [row for kind, row in kinds.items() if kind.endswith("/not") == wanted]
        count = max(1, sum(n for *_, n in rows))
        found[f"{name}_right"] = sum(right * n for right, _, n in rows) / count
        found[f"{name}_hit"] = sum(hit * n for _, hit, n in rows) / count
    return found


def judged(network: Network, packed: Packed) -> list[tuple[object, float, float]]:
    """Return (question, 1 if all tokens of the answer are right, 1 if the pointer is on the evidence) tuples."""
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
    """Map the number of a memory token in the view to its place in prompt order."""
    place = torch.zeros(int(numbers.max()) + 1, dtype=torch.int64)
    place[numbers] = torch.arange(len(numbers))
    return place
