"""Events made by hand, with keys that a checkpoint's read-outs give the wanted names."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from salmonn_node.memory.event_names import EventNames
from salmonn_node.memory.events import Event
from salmonn_node.stream.observations import SECOND_NS

CAMERA, MICROPHONE = 0, 1


@cache
def key_of(names: EventNames, *labels: tuple[str, str]) -> Tensor:
    """A key that the read-outs give these names: found by following their gradient."""
    layers = [names.read[attribute] for attribute, _ in labels]
    weight = layers[0].weight
    assert isinstance(weight, Tensor)
    key = torch.zeros(weight.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([key], 0.1)
    for _ in range(300):
        rows = [layer(torch.nn.functional.normalize(key + 1e-3, dim=0))[None] for layer in layers]
        wanted = [torch.tensor([names.labels[attribute].index(label)]) for attribute, label in labels]
        loss = sum(torch.nn.functional.cross_entropy(r, w) for r, w in zip(rows, wanted, strict=True))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
    return torch.nn.functional.normalize(key.detach(), dim=0)


def sight(names: EventNames, colour: str, shape: str, first_s: int, last_s: int, room: str = "hall") -> Event:
    frames = last_s - first_s + 1
    look, view = key_of(names, ("colour", colour), ("shape", shape)), key_of(names, ("room", room))
    return Event(
        first_s, "visual", CAMERA, first_s * SECOND_NS, last_s * SECOND_NS, frames * look, frames * view,
        float(frames), frames, pose_id=first_s, tokens=(8 * first_s, 8 * first_s, 8 * last_s), region=1,
    )  # fmt: skip


def sound(names: EventNames, name: str, first_s: int, seconds: float, repeats: float = 1.0) -> Event:
    tokens = round(2 * seconds)
    last_ns = first_s * SECOND_NS + (tokens - 1) * SECOND_NS // 2
    view = torch.zeros(names.sizes[0])
    key = tokens * key_of(names, ("sound", name))
    return Event(
        first_s, "audio", MICROPHONE, first_s * SECOND_NS, last_ns, key, view, float(tokens), tokens, repeats,
        tokens=(2 * first_s, 2 * first_s, 2 * first_s + tokens - 1),
    )  # fmt: skip
