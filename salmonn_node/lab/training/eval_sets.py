"""Streams and arms of `salmonn eval`, by name. No torch import, so that `--help` can list them quickly."""

from __future__ import annotations

from dataclasses import dataclass

# Baselines: no answers from events; see only, hear only, or give the most common answer to each form of question.
# Oracles: what a question asks is told, not read; or the truth of the world answers.
NETWORK, TOLD, ORACLE, BLIND = "network", "told", "oracle", "blind"
BASELINES = (NETWORK, "vision", "audio", BLIND, TOLD, ORACLE)
ARMS = "default,recent,fifo,uniform,merge,paper,place"


@dataclass(frozen=True)
class EvalSet:
    """A set of streams to score a checkpoint on.

    Attributes:
        name: name of the set.
        seconds: length of each stream. 0: a whole world of `bank.LONG`.
        streams: number of streams.
        questions: number of questions at the end of each stream.
        dense: whether the worlds are dense.
        joined: number of worlds of `bank.LONG` joined into one stream.
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
    EvalSet("dense-100x", 0, 3, 150, True),
)
