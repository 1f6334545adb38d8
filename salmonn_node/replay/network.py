"""The live node's observer and answerer for a replay: inline, without deadlines, the memory kept as an arm says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from salmonn_node.answering.answerer import Answerer
from salmonn_node.model.checkpoint import load
from salmonn_node.observer import Observer

DEFAULT_ARM = "default"
_RULES = ("recent", "fifo", "uniform", "merge", "paper", "place")
_OPTIMIZERS = {"static": "static", "ttt-sgd": "sgd", "ttt-hf": "hf"}


def arm_names() -> list[str]:
    """Every arm: the checkpoint as it is, each discard rule, and each rule with each update of the fast weights."""
    return [DEFAULT_ARM, *_RULES, *(f"{rule}+{update}" for rule in _RULES for update in _OPTIMIZERS)]


def arm_changes(arm: str, config: Any) -> dict[str, Any]:
    """Fields of a network's configuration that an arm replaces.

    Raises:
        ValueError: unknown arm, or one with fast weights for a checkpoint without.
    """
    if arm not in arm_names():
        raise ValueError(f"unknown arm {arm!r}; known: {', '.join(arm_names())}")
    if arm == DEFAULT_ARM:
        return {}
    rule, _, update = arm.partition("+")
    changes: dict[str, Any] = {"memory": replace(config.memory, visual_rule=rule)}
    if update:
        if config.ttt is None:
            raise ValueError(f"arm {arm!r} needs fast weights, and checkpoint {config.name!r} has none")
        changes["ttt"] = {**config.ttt, "optimizer": _OPTIMIZERS[update]}
    else:
        # Without its update the layer would still transform tokens: a discard rule alone means no layer at all.
        changes |= {"ttt": None, "recall": False}
    return changes


def build(checkpoint: str, arm: str, prefill: str, frame_rate_hz: float) -> tuple[Observer, Answerer]:
    """An inline observer and its answerer.

    Raises:
        ValueError: unknown checkpoint or arm.
    """
    changes = arm_changes(arm, load(checkpoint).config)
    if prefill:
        changes["prefill"] = prefill
    observer = Observer(load(checkpoint, **changes), frame_rate_hz=frame_rate_hz, inline=True)
    return observer, Answerer(observer)
