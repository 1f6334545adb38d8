"""Facts about segments of the world, to query fast weights densely without a language model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from salmonn_node.lab.training.evidence_tokens import PATCH_TOKENS
from salmonn_node.lab.training.streams import Bank, Piece, Pieces
from salmonn_node.lab.training.vision import COLOUR, ROOM, SHAPE
from salmonn_node.lab.world.objects import Thing, pairs
from salmonn_node.lab.world.truth import Truth, compose, index

UPDATES = 8  # updates per segment
ASKED_AFTER = (UPDATES // 2, UPDATES)
PIECE_S = (16, 32, 64)
MOST = 6  # facts of each kind at each moment of asking
KINDS = ("colour", "room", "existence")


@dataclass(frozen=True)
class Fact:
    """A question about a segment.

    Attributes:
        kind: one of KINDS.
        words: colour, shape and room in the question. 0, or for a room -1, if it names none.
        answer: number of the right answer.
        after: number of updates after which it is asked.
        age: updates since the evidence was last seen. -1 if it never was.
    """

    kind: str
    words: tuple[int, int, int]
    answer: int
    after: int
    age: int


@dataclass(frozen=True)
class FactSegment:
    """Pieces of encoded streams, and facts about them."""

    pieces: tuple[Piece, ...]
    facts: tuple[Fact, ...]


def facts_of(truth: Truth, update_s: int, after: int, rng: np.random.Generator) -> list[Fact]:
    """Draw facts that are known after `after` updates of `update_s` seconds."""
    now = after * update_s
    ix = index(truth, now)
    found: dict[str, list[Fact]] = {kind: [] for kind in KINDS}

    def add(kind: str, words: tuple[int, int, int], answer: int, seen_s: int | None) -> None:
        age = -1 if seen_s is None else after - 1 - seen_s // update_s
        found[kind].append(Fact(kind, words, answer, after, age))

    here: dict[tuple[str, str], dict[Thing, int]] = {}
    for thing, episodes in ix.episodes.items():
        for episode in episodes:
            here.setdefault((thing.shape, episode.room), {})[thing] = episode.last
        last = episodes[-1]
        number = (COLOUR[thing.colour], SHAPE[thing.shape])
        if last.room in ROOM:
            add("room", (*number, -1), ROOM[last.room], last.last)
        add("existence", (*number, -1), 1, last.last)
    for (shape, room), things in here.items():
        if len(things) == 1 and room in ROOM:
            ((thing, last_s),) = things.items()
            add("colour", (0, SHAPE[shape], ROOM[room]), COLOUR[thing.colour], last_s)
    # Near misses first: the same shape in another colour.
    shapes = {t.shape for t in ix.glimpses}
    unseen = [t for t in pairs(True) if t not in ix.glimpses]
    close = [t for t in unseen if t.shape in shapes] or unseen
    for i in rng.permutation(len(close))[: min(MOST, len(found["existence"]))]:
        add("existence", (COLOUR[close[i].colour], SHAPE[close[i].shape], -1), 0, None)
    return [f for kind in KINDS for i, f in enumerate(_shuffled(found[kind], rng)) if i < MOST]


def _shuffled(facts: list[Fact], rng: np.random.Generator) -> list[Fact]:
    return [facts[i] for i in rng.permutation(len(facts))]


def segments(count: int, bank: Bank, mini_batch: int, seed: int) -> list[FactSegment]:
    """Make segments of UPDATES mini-batches, each composed of pieces of several streams."""
    truths = [stream.truth for stream in bank.streams]
    pieces = Pieces(truths, bank.dense)
    update_s = mini_batch // PATCH_TOKENS * 2
    made = []
    for number in range(count):
        rng = np.random.default_rng([seed, 11, number])
        chosen = pieces.several(UPDATES * update_s, int(rng.choice(PIECE_S)), rng)
        truth = compose([truths[n].piece(a, b) for n, a, b in chosen])
        facts = [f for after in ASKED_AFTER for f in facts_of(truth, update_s, after, rng)]
        made.append(FactSegment(tuple(chosen), tuple(facts)))
    return made
