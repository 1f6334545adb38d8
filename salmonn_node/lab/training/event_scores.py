"""How well events are told apart: precision and recall against the log of the world.

An event has no name. It is right when the thing that its sharpest token shows, or the sound of its time, really was
in plain view, or clearly heard, during it; each true event is matched once, the longest overlap first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

from salmonn_node.lab.training.sizes import GRID
from salmonn_node.lab.training.streams import CUT_S, Tokens
from salmonn_node.lab.world.truth import START_NS, WorldMoment, index
from salmonn_node.memory.event_heads import EventHeads
from salmonn_node.memory.events import Event, SegmentConfig
from salmonn_node.memory.sight_segments import SightSegmenter
from salmonn_node.memory.sound_segments import SoundSegmenter
from salmonn_node.memory.token_batch import TokenBatch
from salmonn_node.stream.observations import SECOND_NS

CELLS = GRID[0] * GRID[1]


class Span(NamedTuple):
    """What was there, from when to when in seconds of the stream."""

    name: str
    first: float
    last: float


def visual_batch(tokens: Tokens) -> TokenBatch:
    """All visual tokens of a stream, as the memory takes them in."""
    count = tokens.z.shape[0] * CELLS
    number = torch.arange(count)
    patch = number // CELLS
    stamp = START_NS + 2 * patch * SECOND_NS
    grid = torch.tensor(GRID).expand(count, 2)
    rest = (number, stamp, patch, number % CELLS, number * 0, patch, grid, None, stamp + SECOND_NS)
    return TokenBatch(tokens.z.flatten(0, 1), tokens.deepstack.flatten(1, 2), *rest)


def audio_batch(tokens: Tokens) -> TokenBatch:
    """All audio tokens of a stream."""
    number = torch.arange(len(tokens.audio))
    window = number // (2 * CUT_S)
    return TokenBatch(
        tokens.audio, None, number, START_NS + number * SECOND_NS // 2, window, number * 0, number * 0, number * 0 - 1
    )


def told(heads: EventHeads, tokens: Tokens, config: SegmentConfig | None = None) -> tuple[list[Event], list[Event]]:
    """Sights and sounds of a stream, those that still run at its end included."""
    config = config or SegmentConfig()
    eyes, ears = SightSegmenter(heads, config), SoundSegmenter(heads, config)
    sights, sounds = eyes.observe(visual_batch(tokens)), ears.observe(audio_batch(tokens))
    return sights + [e for e in eyes.open if eyes.makes_event(e)], sounds + [
        e for e in ears.open if ears.makes_event(e)
    ]


def scores(heads: EventHeads, streams: Iterable[Tokens]) -> dict[str, float]:
    """Precision and recall of sights and sounds over streams; faint sounds count neither way."""
    sums = dict.fromkeys(("sights", "true_sights", "right_sights", "sounds", "true_sounds", "right_sounds"), 0)
    for tokens in streams:
        truth = tokens.truth
        sights, sounds = told(heads, tokens)
        seen = [_sight(e, truth.moments) for e in sights]
        real = [Span(e.thing.name, e.first, e.last) for es in index(truth, truth.seconds).episodes.values() for e in es]
        heard = [Span("", _seconds(e.first_ns), _seconds(e.last_ns) + 0.5) for e in sounds]
        clear = [Span("", s.start_s, s.end_s) for s in truth.sounds if s.clear]
        faint = [Span("", s.start_s, s.end_s) for s in truth.sounds if not s.clear]
        met, listened = matches(seen, real), matches(heard, clear)
        doubtful = len(matches([h for i, h in enumerate(heard) if i not in listened], faint))
        for name, number in zip(
            sums, (len(seen), len(real), len(met), len(heard) - doubtful, len(clear), len(listened)), strict=True
        ):
            sums[name] += number
    return {
        f"{name}_{figure}": sums[f"right_{name}"] / max(1, sums[of])
        for name in ("sights", "sounds")
        for figure, of in (("precision", name), ("recall", f"true_{name}"))
    }


def matches(found: Sequence[Span], real: Sequence[Span]) -> set[int]:
    """Positions of the found spans that a real one of the same name overlaps; every real one serves once."""
    pairs = []
    for i, one in enumerate(found):
        for j, other in enumerate(real):
            overlap = min(one.last, other.last) - max(one.first, other.first)
            if one.name == other.name and overlap >= 0:
                pairs.append((-overlap, i, j))
    taken: set[int] = set()
    used: set[int] = set()
    for _, i, j in sorted(pairs):
        if i not in taken and j not in used:
            taken.add(i)
            used.add(j)
    return taken


def _sight(event: Event, moments: Sequence[WorldMoment]) -> Span:
    """An event named by what covers most of its sharpest token's cell in the frames of that token's patch."""
    patch, cell = divmod(event.tokens[0], CELLS)
    low, column = divmod(cell, GRID[1])
    covered: dict[str, float] = {}
    for moment in moments[2 * patch : 2 * patch + 2]:
        for seen in moment.seen:
            x0, y0, x1, y1 = seen.box
            x = min(x1, (column + 1) / GRID[1]) - max(x0, column / GRID[1])
            y = min(y1, (low + 1) / GRID[0]) - max(y0, low / GRID[0])
            if x > 0 and y > 0:
                covered[seen.thing.name] = covered.get(seen.thing.name, 0.0) + x * y
    name = max(covered, key=lambda n: covered[n]) if covered else "nothing"
    return Span(name, _seconds(event.first_ns), _seconds(event.last_ns))


def _seconds(stamp_ns: int) -> float:
    return (stamp_ns - START_NS) / SECOND_NS
