"""The live node's observer and answerer for a replay: inline, without deadlines, the memory kept as an arm says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from salmonn_node.answering.answerer import Answerer
from salmonn_node.answering.grounding import Grounding
from salmonn_node.answering.server_settings import ServerSettings
from salmonn_node.evaluation.arms import DEFAULT_ARM, split_name
from salmonn_node.evaluation.equal_bytes import changes
from salmonn_node.ingest.observer import Observer
from salmonn_node.model.checkpoint import config_of
from salmonn_node.model.network_settings import NEVER, NetworkSettings, load_network
from salmonn_node.runtime.build import assemble
from salmonn_node.runtime.settings import Settings

MAX_EVIDENCE = 3  # of an answer in a replay


def build(
    network: NetworkSettings,
    arm: str,
    frame_rate_hz: float,
    grounding: Grounding | None = None,
    server: ServerSettings | None = None,
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
        # Arms compare how tokens are kept, at equal bytes: only the checkpoint's own arm keeps events beside them.
        network = replace(network, read_events=NEVER)
    settings = Settings(
        network,
        server or ServerSettings(),
        memory_name="memory",
        frame_rate_hz=frame_rate_hz,
        max_evidence=MAX_EVIDENCE,
    )
    return assemble(load_network(network, **other), settings, grounding=grounding, inline=True)
