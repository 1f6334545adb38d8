"""The streams and arms of `salmonn eval`, by name; no torch, so that `--help` can list them."""

from __future__ import annotations

from dataclasses import dataclass

# What the questions give away to one who sees only, hears only, or says the commonest answer of each question's form.
BASELINES = ("vision", "audio", "blind")
ARMS = "default,recent,fifo,uniform,merge,paper,place"


@dataclass(frozen=True)
class EvalSet:
    """Streams that a checkpoint is scored on.

    Attributes:
        name: of the set.
        seconds: of each stream; 0: a world of `bank.LONG` whole.
        streams: how many.
        questions: asked at the end of each.
        dense: which worlds.
        joined: worlds of `bank.LONG` that follow each other in one stream.
    """

    name: str
    seconds: int
    streams: int
    questions: int
    dense: bool | None = None
    joined: int = 1


SETS = (
    EvalSet("within", 44, 60, 14),
    EvalSet("sparse-4x", 512, 5, 60, False),
    EvalSet("sparse-16x", 2048, 3, 100, False),
    EvalSet("sparse-100x", 0, 3, 150, False),
    EvalSet("sparse-300x", 0, 1, 300, False, 3),
    EvalSet("dense-1x", 128, 8, 40, True),
    EvalSet("dense-4x", 512, 5, 60, True),
    EvalSet("dense-16x", 2048, 3, 100, True),
    EvalSet("dense-100x", 0, 1, 150, True),
)
