"""The live node's observer and answerer for a replay: inline, without deadlines, the memory kept as an arm says."""

from __future__ import annotations

from salmonn_node.answering.answerer import Answerer
from salmonn_node.answering.grounding import Grounding
from salmonn_node.evaluation.arms import bytes_table, changes, parse_arms
from salmonn_node.ingest.observer import Observer
from salmonn_node.model.checkpoint import config_of
from salmonn_node.model.network_settings import NetworkSettings, load_network

DEFAULT_ARM = "default"
# The last part of an arm's name may say how the memory is read: "default+cached", "place+hf+exact".
PREFILLS = ("exact", "cached")


def arm_names(text: str) -> list[str]:
    """Names of the arms in a list such as "default,place,place+hf+recall"; "main" and "all" name sets.

    Raises:
        ValueError: an unknown arm.
    """
    names: list[str] = []
    for word in (w.strip() for w in text.split(",")):
        kept, prefill = _split(word)
        found = [DEFAULT_ARM] if kept == DEFAULT_ARM else [arm.name for arm in parse_arms(kept)]
        names += [f"{name}+{prefill}" if prefill else name for name in found]
    return list(dict.fromkeys(names))


def _split(name: str) -> tuple[str, str]:
    """How the memory is kept, and how it is read ("" for the checkpoint's own way)."""
    kept, _, last = name.rpartition("+")
    return (kept, last) if last in PREFILLS else (name, "")


def arms_bytes(checkpoint: str, names: list[str]) -> str:
    """What each arm holds in bytes, as a table; the checkpoint's own arm is the reference and left out."""
    kept = dict.fromkeys(_split(name)[0] for name in names)
    return bytes_table(config_of(checkpoint), [arm for n in kept if n != DEFAULT_ARM for arm in parse_arms(n)])


def build(
    network: NetworkSettings, arm: str, frame_rate_hz: float, grounding: Grounding | None = None
) -> tuple[Observer, Answerer]:
    """An inline observer and its answerer, which takes frames and positions of objects from `grounding`.

    Raises:
        ValueError: unknown checkpoint or arm, or an arm that the checkpoint cannot be.
        FileNotFoundError: the checkpoint is not on this machine; the message names the command that gets it.
    """
    kept, prefill = _split(arm)
    other: dict[str, object] = {"prefill": prefill} if prefill else {}
    if kept != DEFAULT_ARM:
        other |= changes(network.changed(config_of(network.checkpoint)), kept)
    model = load_network(network, **other)
    observer = Observer(model, frame_rate_hz=frame_rate_hz, inline=True)
    return observer, Answerer(observer, max_new_tokens=network.max_new_tokens, grounding=grounding)
