"""The live node's observer and answerer for a replay: inline, without deadlines, the memory kept as an arm says."""

from __future__ import annotations

from typing import Any

from salmonn_node.answering.answerer import Answerer
from salmonn_node.answering.grounding import Grounding
from salmonn_node.evaluation.arms import DEFAULT_ARM, split_name
from salmonn_node.evaluation.equal_bytes import changes
from salmonn_node.ingest.observer import Observer
from salmonn_node.model.checkpoint import config_of
from salmonn_node.model.network_settings import NetworkSettings, load_network


def build(
    network: NetworkSettings, arm: str, frame_rate_hz: float, grounding: Grounding | None = None
) -> tuple[Observer, Answerer]:
    """An inline observer and its answerer, which takes frames and positions of objects from `grounding`.

    Raises:
        ValueError: unknown checkpoint or arm, or an arm that the checkpoint cannot be.
        FileNotFoundError: the checkpoint is not on this machine; the message names the command that gets it.
    """
    kept, prefill = split_name(arm)
    other: dict[str, Any] = {"prefill": prefill} if prefill else {}
    if kept != DEFAULT_ARM:
        other |= changes(network.changed(config_of(network.checkpoint)), kept)
    model = load_network(network, **other)
    observer = Observer(model, frame_rate_hz=frame_rate_hz, inline=True)
    return observer, Answerer(observer, max_new_tokens=network.max_new_tokens, grounding=grounding)
