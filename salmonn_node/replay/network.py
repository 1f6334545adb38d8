"""The live node's observer and answerer for a replay: inline, without deadlines, the memory kept as an arm says."""

from __future__ import annotations

from dataclasses import fields

from salmonn_node.answering.answerer import Answerer
from salmonn_node.model.checkpoint import load
from salmonn_node.observer import Observer
from salmonn_node.replay.arms import bytes_table, configure, parse_arms

DEFAULT_ARM = "default"


def arm_names(text: str) -> list[str]:
    """Names of the arms in a list such as "default,place,place+hf+recall"; "main" and "all" name sets.

    Raises:
        ValueError: an unknown arm.
    """
    names: list[str] = []
    for word in (w.strip() for w in text.split(",")):
        names += [DEFAULT_ARM] if word == DEFAULT_ARM else [arm.name for arm in parse_arms(word)]
    return list(dict.fromkeys(names))


def arms_bytes(checkpoint: str, names: list[str]) -> str:
    """What each arm holds in bytes, as a table; the checkpoint's own arm is the reference and left out."""
    return bytes_table(load(checkpoint).config, [arm for n in names if n != DEFAULT_ARM for arm in parse_arms(n)])


def build(checkpoint: str, arm: str, prefill: str, frame_rate_hz: float) -> tuple[Observer, Answerer]:
    """An inline observer and its answerer.

    Raises:
        ValueError: unknown checkpoint or arm, or an arm that the checkpoint cannot be.
    """
    model = load(checkpoint)
    changes: dict[str, object] = {"prefill": prefill} if prefill else {}
    if arm != DEFAULT_ARM:
        made = configure(model.config, parse_arms(arm)[0])
        was = model.config
        changes |= {f.name: new for f in fields(made) if (new := getattr(made, f.name)) != getattr(was, f.name)}
    if changes:
        model = load(checkpoint, **changes)
    observer = Observer(model, frame_rate_hz=frame_rate_hz, inline=True)
    return observer, Answerer(observer)
