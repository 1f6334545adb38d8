"""What fast weights over events remember, at equal bytes: a list of events, tables, SGD, today's layer, Hessian-free.

A generated stream of events, each a key (how a thing looks, with noise) and two facts about it: where it stood, which
changes now and then, and what lasts. At the end every thing is asked about by a key of its own. Perception errs at a
given rate. Nothing is rendered, so that anyone can run it in minutes.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from salmonn_node.ttt.config import TTTConfig
from salmonn_node.ttt.event_layer import EventLayer, EventLayerConfig, product_address, sparse_part
from salmonn_node.ttt.inner_model import InnerWeights, Norm, evaluate, normalise_target
from salmonn_node.ttt.update import Rows, update

PART = 12  # channels of each part of a key: a colour and a shape, say
PLACES = 8  # values of each of the two facts
KINDS = 24  # of each part: 24 * 24 things are possible
NOISE = 0.25  # deviation of a key's parts, against parts of length 1
MINI_BATCH = 16
HEADER = 8  # bytes of stamps of an event in a list


@dataclass(frozen=True)
class Events:
    """A stream of events and what is asked at its end.

    Attributes:
        keys: (E, 2, PART) as perceived.
        values: (E, 2 * PLACES) as perceived: one of PLACES for each fact.
        asked: (Q, 2, PART) keys of the things asked about.
        changing, lasting: (Q,) what was last true.
    """

    keys: Tensor
    values: Tensor
    asked: Tensor
    changing: Tensor
    lasting: Tensor


def stream(seed: int, things: int, events: int, error: float, change: float = 0.3) -> Events:
    """Draw a stream: things are met about equally often, and stand elsewhere at `change` of the meetings."""
    rng = np.random.default_rng([seed, things, events, round(error * 100)])
    parts = [functional.normalize(torch.from_numpy(rng.standard_normal((KINDS, PART))).float(), dim=1) for _ in "ab"]
    pairs = rng.choice(KINDS * KINDS, size=things, replace=False)
    protos = torch.stack([parts[0][pairs // KINDS], parts[1][pairs % KINDS]], dim=1)
    where, fixed = rng.integers(0, PLACES, things), rng.integers(0, PLACES, things)
    met = rng.integers(0, things, events)
    told = np.empty((events, 2), np.int64)
    for number, thing in enumerate(met):
        if rng.random() < change:
            where[thing] = rng.integers(0, PLACES)
        told[number] = where[thing], fixed[thing]
    wrong = rng.random((events, 2)) < error
    told[wrong] = rng.integers(0, PLACES, int(wrong.sum()))
    noise = torch.from_numpy(rng.standard_normal((2, max(events, things), 2, PART))).float() * NOISE / math.sqrt(PART)
    values = functional.one_hot(torch.from_numpy(told), PLACES).float().flatten(1)
    seen = np.unique(met)
    keys = functional.normalize(protos[met] + noise[0, :events], dim=2)
    asked = functional.normalize(protos[seen] + noise[1, : len(seen)], dim=2)
    return Events(keys, values, asked, torch.from_numpy(where[seen]), torch.from_numpy(fixed[seen]))


Recall = Callable[[Tensor], Tensor]  # keys (Q, 2, PART) -> (Q, 2 * PLACES)


def codebooks(slots: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random directions for either part of a key: they know nothing of the things. n1 * n2 <= slots."""
    generator = torch.Generator().manual_seed(seed + 7)
    first = max(1, int(math.sqrt(slots)))
    books = [torch.randn(n, PART, generator=generator) for n in (first, max(1, slots // first))]
    return functional.normalize(books[0], dim=1), functional.normalize(books[1], dim=1)


def table_arm(data: Events, size: int, seed: int, arm: str) -> Recall:
    """Arms over sparse product addresses: static, last, mean, SGD and Hessian-free."""
    width = data.values.shape[1]
    floats = {"mean": width + 1, "hf + mean": 2 * width + 1}.get(arm, width)
    books = codebooks(max(2, size // (4 * floats)), seed)

    def address(keys: Tensor) -> Tensor:
        scores = [keys[:, part] @ book.T for part, book in enumerate(books)]
        return product_address(*(sparse_part(score, 2, 0.1) for score in scores))

    slots = len(books[0]) * len(books[1])
    settings: dict[str, Any] = {
        "static": {"optimizer": "static"},
        "sgd": {"optimizer": "sgd", "lr": 0.7, "mini_batch": MINI_BATCH},
        "hf, 16 events, K=1": {"mini_batch": MINI_BATCH, "damping": 0.1},
        "hf, 16 events, K=8": {"mini_batch": MINI_BATCH, "cg_iterations": 8, "damping": 0.1},
    }.get(arm, {"damping": 0.05})
    layer = EventLayer(EventLayerConfig(slots, width, **settings), torch.full((width,), 1 / PLACES))
    for where, value in zip(address(data.keys), data.values, strict=True):
        if arm == "last":
            layer.weights[int(where.argmax())] = value
        else:
            layer.write(where, value)
    if arm == "mean":
        return lambda keys: layer.mean(address(keys))
    if arm == "hf + mean":  # the last for what changes, the mean for what lasts
        return lambda keys: torch.cat([layer.read(address(keys))[:, :PLACES], layer.mean(address(keys))[:, PLACES:]], 1)
    if arm == "last":
        return lambda keys: layer.weights[address(keys).argmax(1)]
    return lambda keys: layer.read(address(keys))


def list_arm(data: Events, size: int, seed: int, arm: str) -> Recall:
    """No fast weights: as many events as fit, and of those that look alike the newest is asked.

    Of a full list the oldest goes ("list, newest"), or what most resembles an earlier and a later one ("list, ends").
    """
    room = max(2, size // (4 * (2 * PART + 2) + HEADER))
    keys = data.keys.flatten(1) / math.sqrt(2)
    kept: list[int] = []
    for number in range(len(keys)):
        kept.append(number)
        if len(kept) > room:
            drop = 0
            if arm == "list, ends":
                cosines = keys[kept] @ keys[kept].T
                before, after = torch.tril(cosines, -1).max(1).values, torch.triu(cosines, 1).max(1).values
                drop = int(torch.minimum(before, after).argmax())
            kept.pop(drop)
    mine, values = keys[kept], data.values[kept]

    def recall(asked: Tensor) -> Tensor:
        cosines = asked.flatten(1) / math.sqrt(2) @ mine.T
        alike = cosines >= (cosines.max(1, keepdim=True).values - 0.1)
        newest = torch.where(alike, torch.arange(len(mine)), -1).argmax(1)
        mean = alike.float() @ values
        return torch.cat([values[newest][:, :PLACES], mean[:, PLACES:]], dim=1)

    return recall


def layer_arm(data: Events, size: int, seed: int, arm: str) -> Recall:
    """Today's inner model: two dense layers from key to value, Hessian-free (K=1), untrained."""
    width = max(2 * PART, data.values.shape[1])
    hidden = max(4, (size // 4 - width) // (2 * width + 1))
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(1, width, hidden, generator=generator) / math.sqrt(width)
    second = torch.randn(1, hidden, width, generator=generator) / math.sqrt(hidden)
    weights = InnerWeights(first, torch.zeros(1, 1, hidden), second, torch.zeros(1, 1, width))
    norm = Norm(torch.ones(1, 1, width), torch.zeros(1, 1, width))
    config = TTTConfig(width, 1, hidden, MINI_BATCH, lag_distance=0, optimizer="hf", cg_iterations=1, rotary=False)

    def padded(rows: Tensor) -> Tensor:
        return functional.pad(rows, (0, width - rows.shape[-1]))[None]

    for start in range(0, len(data.keys) - MINI_BATCH + 1, MINI_BATCH):
        rows = slice(start, start + MINI_BATCH)
        key, target = padded(data.keys[rows].flatten(1)), normalise_target(padded(data.values[rows]), norm)
        batch = Rows(key, key, target, torch.full((1, MINI_BATCH, 1), 0.5))
        weights = update(batch, weights, weights, torch.ones(1), norm, config).weights
    return lambda keys: evaluate(padded(keys.flatten(1)), weights, norm)[0, :, : 2 * PLACES]


ARMS: dict[str, Callable[[Events, int, int, str], Recall]] = {
    "list, newest": list_arm,
    "list, ends": list_arm,
    "static": table_arm,
    "mean": table_arm,
    "last": table_arm,
    "sgd": table_arm,
    "today's layer, hf K=1": layer_arm,
    "hf, 16 events, K=1": table_arm,
    "hf, 16 events, K=8": table_arm,
    "hf, each event": table_arm,
    "hf + mean": table_arm,
}
# (things, bytes, how often perception errs)
REGIMES = ((64, 20_000, 0.0), (64, 20_000, 0.2), (400, 10_000, 0.0), (400, 20_000, 0.2), (400, 100_000, 0.0))


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Every arm in every regime."""
    chosen = [a.strip() for a in args.arms.split(";") if a.strip()] or list(ARMS)
    rows = []
    for things, size, error in REGIMES:
        streams = [stream(seed, things, args.events, error) for seed in range(args.seeds)]
        for arm in chosen:
            scores = [list(_scores(data, ARMS[arm](data, size, seed, arm))) for seed, data in enumerate(streams)]
            changing, lasting = np.array(scores).T
            rows.append(
                {"things": things, "bytes": size, "error": error, "arm": arm,
                 "changing": changing.round(3).tolist(), "lasting": lasting.round(3).tolist()}
            )  # fmt: skip
    return {"events": args.events, "chance": 1 / PLACES, "rows": rows}


@torch.no_grad()
def _scores(data: Events, recall: Recall) -> Iterator[float]:
    found = recall(data.asked)
    for start, truth in ((0, data.changing), (PLACES, data.lasting)):
        yield float((found[:, start : start + PLACES].argmax(1) == truth).float().mean())


def tables(results: dict[str, Any]) -> list[Table]:
    """One table a regime: the mean over the seeds, the least and the most."""
    out = []
    for things, size, error in REGIMES:
        shown = Table("arm", "where it stood last", "what lasts")
        shown.title = f"{things} things, {size / 1e6:g} MB, perception wrong in {error:.0%}; chance .125"
        for row in results["rows"]:
            if (row["things"], row["bytes"], row["error"]) == (things, size, error):
                shown.add_row(row["arm"], *(_spread(row[name]) for name in ("changing", "lasting")))
        out.append(shown)
    return out


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"
