"""Fit the names of events (`memory/event_names.py`) on encoded streams of training worlds.

Names are read from the keys of single tokens, of which there are many; they are then used on the summed keys of events.
How credible an event is, is fitted on whole memories: what was told as an event, against what was in view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from salmonn_node.answering.named_events import PRESENT, Fitting, NamedEvents
from salmonn_node.lab.training.audio import CLASSES, token_labels
from salmonn_node.lab.training.event_scores import CELLS, audio_batch, visual_batch
from salmonn_node.lab.training.question_texts import SLOTS
from salmonn_node.lab.training.streams import CUT_S, Tokens
from salmonn_node.lab.training.vision import NONE, patch_labels
from salmonn_node.lab.world.objects import PERSON, Thing
from salmonn_node.lab.world.sounds import SPOKEN
from salmonn_node.lab.world.truth import START_NS, SoundTruth, index
from salmonn_node.memory.event_heads import EventHeads
from salmonn_node.memory.event_memory import EventMemory, EventMemoryConfig
from salmonn_node.memory.event_names import FITS, EventNames
from salmonn_node.stream.observations import SECOND_NS

STEPS, BATCH, RATE = 800, 512, 2e-2
NEWTON, LEAST = 30, 10


def fit(
    heads: EventHeads,
    streams: Sequence[Tokens],
    sounds: Iterable[tuple[Tensor, tuple[SoundTruth, ...]]] = (),
    seed: int = 0,
) -> EventNames:
    """Fit the names of colours, shapes, rooms and sounds; the rest is fitted by `fit_credibility`.

    Args:
        heads: the read-outs that tell events apart.
        streams: encoded streams of training worlds.
        sounds: further audio tokens (T, D) with what was to be heard.
        seed: of the draws.
    """
    torch.manual_seed(seed)
    labels = dict(SLOTS)
    names = EventNames(labels, SPOKEN, {PERSON: "person in {colour}"}, heads.key_sizes)
    looks, colours, shapes, views, rooms = (
        torch.cat(part) for part in zip(*(_seen(heads, t) for t in streams), strict=True)
    )
    heard = [(t.audio, t.truth.sounds) for t in streams] + list(sounds)
    keys, classes = (
        torch.cat(part) for part in zip(*(_heard(heads, tokens, mine) for tokens, mine in heard), strict=True)
    )
    assert labels["sound"] == CLASSES
    for name, x, y in (
        ("colour", looks, colours),
        ("shape", looks, shapes),
        ("room", views, rooms),
        ("sound", keys, classes),
    ):
        _train(names.read[name], x[y >= 0], y[y >= 0], functional.cross_entropy)
    return names.eval()


@torch.no_grad()
def _seen(heads: EventHeads, tokens: Tokens) -> tuple[Tensor, ...]:
    """Keys of the tokens that show a thing with colours and shapes, and keys of the views with rooms."""
    x = heads.visual_features(torch.cat([tokens.z, *tokens.deepstack], dim=-1))
    colours, shapes, rooms = patch_labels(tokens.truth)
    shown = (colours > NONE) & (shapes > NONE) & (torch.sigmoid(heads.visual_state(x))[..., 0] > FITS)
    keys = functional.normalize(heads.visual_key(x), dim=-1)[shown]
    views = functional.normalize(heads.view_key(x.mean(1)), dim=-1)
    return keys, colours[shown] - 1, shapes[shown] - 1, views, rooms


@torch.no_grad()
def _heard(heads: EventHeads, tokens: Tensor, sounds: tuple[SoundTruth, ...]) -> tuple[Tensor, Tensor]:
    none = torch.zeros_like(tokens[:1])
    x = heads.audio_features(torch.cat([none, tokens[:-1]]), tokens, torch.cat([tokens[1:], none]))
    here = torch.from_numpy(token_labels(sounds, len(tokens))[0])
    one = (here == 1).sum(1) == 1
    return functional.normalize(heads.audio_key(x), dim=-1)[one], here[one].argmax(1)


def remembered(heads: EventHeads, tokens: Tokens, config: EventMemoryConfig | None = None) -> EventMemory:
    """The event memory at the end of a stream."""
    return list(memories(heads, tokens, (tokens.truth.seconds,), config))[-1]


def memories(
    heads: EventHeads, tokens: Tokens, seconds: Sequence[int], config: EventMemoryConfig | None = None
) -> Iterator[EventMemory]:
    """The event memory after each of these seconds, multiples of CUT_S in order."""
    memory, seen, heard = EventMemory(heads, config), visual_batch(tokens), audio_batch(tokens)
    wanted = set(seconds)
    for start in range(0, max(wanted), CUT_S):
        for patch in range(start // 2, min((start + CUT_S) // 2, len(tokens.z))):
            memory.observe("visual", seen.select(slice(patch * CELLS, (patch + 1) * CELLS)))
        memory.observe("audio", heard.select(slice(2 * start, 2 * (start + CUT_S))))
        if start + CUT_S in wanted:
            now = memory.snapshot()
            now.finish()
            yield now


def fit_credibility(
    names: EventNames, heads: EventHeads, streams: Iterable[Tokens], pieces: int = 4
) -> dict[str, float]:
    """Fit how credible an event is, given all of its name: was what it shows really there, in its time?

    Every stream is asked after each of `pieces` equal parts. Returns the shares of true and of false events that are
    believed.
    """
    rows: dict[str, list[tuple[Tensor, float]]] = {"thing": [], "sound": []}
    for tokens in streams:
        seconds = [CUT_S * (tokens.truth.seconds * (i + 1) // (pieces * CUT_S)) for i in range(pieces)]
        for second, memory in zip(seconds, memories(heads, tokens, seconds), strict=True):
            reading = NamedEvents(names, memory.events("visual"), memory.events("audio"))
            known = index(tokens.truth, second)
            for colour in SLOTS["colour"]:
                for shape in SLOTS["shape"]:
                    looks = known.episodes.get(Thing(colour, shape), [])
                    rows["thing"] += _rows(reading.thing(colour, shape), [(e.first, e.last) for e in looks])
            for name in SLOTS["sound"]:
                clear = [(s.start_s, s.end_s) for s in known.sounds if s.name == name and not s.faint]
                rows["sound"] += _rows(reading.sound(name), clear)
    told = {}
    for kind, found in rows.items():
        if len(found) < LEAST:
            continue  # encoders that are hardly trained, as in a rehearsal, tell hardly any events
        x, y = torch.stack([r for r, _ in found]), torch.tensor([t for _, t in found])
        layer = names.credible[kind]
        assert isinstance(layer, nn.Linear)
        _logistic(layer, x, y)
        believed = names.credibility(kind, x) >= PRESENT
        for true, what in ((True, "true"), (False, "false")):
            mine = believed[(y > PRESENT) == true]
            told |= {f"{what}_{kind}": float(len(mine)), f"{what}_{kind}_believed": float(mine.float().mean())}
    return told


def _rows(found: Fitting, spans: Sequence[tuple[float, float]]) -> list[tuple[Tensor, float]]:
    """Signs of each event, and whether it overlaps one of the true spans, in seconds of the stream."""
    out = []
    for event, signs in zip(found.every, found.signs if found.signs is not None else (), strict=True):
        first, last = ((ns - START_NS) / SECOND_NS for ns in (event.first_ns, event.last_ns))
        out.append((signs, float(any(a <= last and first <= b for a, b in spans))))
    return out


def _logistic(layer: nn.Linear, x: Tensor, y: Tensor) -> None:
    """Logistic regression of y (n,) on x (n, F), with a small ridge, by Newton's method."""
    middle, spread = x.mean(0), x.std(0).clamp_min(1e-6)
    rows = torch.cat([(x - middle) / spread, torch.ones(len(x), 1)], dim=1).double()
    weights, pull = torch.zeros(rows.shape[1]).double(), torch.eye(rows.shape[1]).double()
    pull[-1, -1] = 0.01
    for _ in range(NEWTON):
        p = torch.sigmoid(rows @ weights)
        slope = rows.T @ (p - y) + pull @ weights
        weights -= torch.linalg.solve((rows * (p * (1 - p))[:, None]).T @ rows + pull, slope)
    scaled = weights[:-1].float() / spread
    with torch.no_grad():
        layer.weight.copy_(scaled[None])
        layer.bias.copy_((weights[-1].float() - middle @ scaled)[None])


def _train(layer: nn.Module, x: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    optimizer = torch.optim.AdamW(layer.parameters(), RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS)
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        rows = torch.randint(len(x), (BATCH,), generator=generator)
        value = loss(layer(x[rows]), y[rows])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
