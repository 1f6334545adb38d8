"""Scale the encoders' tokens to the size of word embeddings, so that the language model can start to learn."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from salmonn_node.lab.training.streams import Tokens
from salmonn_node.model.network import Network

STD = 0.25


def scale_outputs(network: Network, streams: Iterable[Tokens]) -> dict[str, float]:
    """Scale visual tokens, deepstack rows and audio tokens to the standard deviation STD. Return the factors.

    The factors are merged into the last linear layers of the mergers and of the audio projection. Nothing else changes.
    """
    made = list(streams)
    visual, assert_audio = network.vision.visual, network.audio
    assert assert_audio is not None
    factors = {"tokens": _scaled(visual.merger.linear_fc2, [s.z for s in made])}
    for k, merger in enumerate(visual.deepstack_merger_list):
        factors[f"deepstack_{k}"] = _scaled(merger.linear_fc2, [s.deepstack[k] for s in made])
    factors["audio"] = _scaled(assert_audio.audio_proj, [s.audio for s in made])
    return factors


def _scaled(linear: nn.Linear, rows: list[Tensor]) -> float:
    factor = STD / float(torch.cat([r.flatten() for r in rows]).std())
    with torch.no_grad():
        linear.weight.mul_(factor)
        linear.bias.mul_(factor)
    return factor
