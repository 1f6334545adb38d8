"""Lesson plans: which streams to compose and what to ask, drawn from the truths before any token exists."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from salmonn_node.lab.training.evidence_tokens import PATCH_TOKENS, whole_stamps
from salmonn_node.lab.training.lessons import Asked, draw
from salmonn_node.lab.training.sizes import GRID
from salmonn_node.lab.training.streams import Piece, Pieces
from salmonn_node.lab.world.truth import Truth, compose

# (seconds, share of the plans). Lengths are mixed from the start, because a network trained on one fails on others.
LENGTHS = ((8, 0.15), (12, 0.2), (24, 0.25), (44, 0.25), (60, 0.15))
# Long enough for several updates of the fast weights, but within the visual budget.
RECALL_LENGTHS = ((64, 0.4), (96, 0.3), (124, 0.3))
QUESTIONS = 40  # number of questions at the end of a training stream
# Share of the plans whose stream is composed of two to PIECES of any worlds. Within one world what comes first, and how
# many of a shape there are, is known to whom knows the world.
MANY_PIECES = 0.7
PIECES = 6


@dataclass(frozen=True)
class LessonPlan:
    """Pieces of encoded streams, one after another, and the questions at their end."""

    pieces: tuple[Piece, ...]
    asked: tuple[Asked, ...]

    @property
    def seconds(self) -> int:
        """Length of the stream."""
        return sum(stop - start for _, start, stop in self.pieces)

    def mirrored(self, worlds: int) -> LessonPlan:
        """Return the plan for the mirrored streams, which follow the `worlds` others in the bank."""
        visual = self.seconds // 2 * PATCH_TOKENS

        def moved(row: int) -> int:
            return row if row >= visual else row + GRID[1] - 1 - 2 * (row % GRID[1])

        asked = tuple(replace(a, evidence=tuple(sorted(map(moved, a.evidence)))) for a in self.asked)
        return LessonPlan(tuple((n + worlds, a, b) for n, a, b in self.pieces), asked)

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps({"pieces": self.pieces, "asked": [asdict(a) for a in self.asked]})

    @classmethod
    def from_json(cls, line: str) -> LessonPlan:
        """Make a plan from `to_json`."""
        values = json.loads(line)
        asked = tuple(Asked(**{**a, "evidence": tuple(a["evidence"])}) for a in values["asked"])
        return cls(tuple((int(n), int(a), int(b)) for n, a, b in values["pieces"]), asked)


def plan(
    number: int,
    truths: Sequence[Truth],
    pieces: Pieces,
    questions: int = QUESTIONS,
    seed: int = 0,
    lengths_s: Sequence[tuple[int, float]] = LENGTHS,
) -> LessonPlan:
    """Draw plan number `number`. Seeds from 100 000 on use wordings held out from training."""
    rng = np.random.default_rng([seed, number])
    lengths, shares = zip(*lengths_s, strict=True)
    seconds = int(rng.choice(lengths, p=shares))
    several = rng.random() < MANY_PIECES and seconds >= 24
    chosen = pieces.several(seconds, seconds // int(rng.integers(2, PIECES + 1)) if several else seconds, rng)
    truth = compose([truths[n].piece(a, b) for n, a, b in chosen])
    asked = draw(truth, questions, int(rng.integers(90_000)) + (seed if seed >= 100_000 else 0),
                 whole_stamps(truth.seconds))  # fmt: skip
    return LessonPlan(tuple(chosen), tuple(asked))


def write_plans(path: Path, plans: Iterator[LessonPlan]) -> None:
    """Write one line per plan. Skips plans without a question."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    with partial.open("w") as file:
        for made in plans:
            if made.asked:
                file.write(made.to_json() + "\n")
    partial.replace(path)


def read_plans(path: Path) -> list[LessonPlan]:
    """Read all plans of a file."""
    with path.open() as file:
        return [LessonPlan.from_json(line) for line in file]
