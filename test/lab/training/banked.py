"""A stream of the packaged demo's truth with random tokens: what training sees, without rendering."""

from __future__ import annotations

import torch

from salmonn_node.lab.training.streams import Tokens
from salmonn_node.lab.world.truth import Truth
from salmonn_node.lab.world.truth_file import truth_from_json
from salmonn_node.live.demo_recording import TRUTH


def demo_truth(seconds: int = 80) -> Truth:
    """The first seconds of the demo's truth."""
    return truth_from_json(TRUTH.read_text()).piece(0, seconds)


def tokens(seconds: int = 80, seed: int = 0) -> Tokens:
    """Random tokens of that length."""
    random = torch.Generator().manual_seed(seed)
    return Tokens(
        torch.randn(seconds // 2, 8, 128, generator=random) / 4,
        torch.randn(1, seconds // 2, 8, 128, generator=random) / 4,
        torch.randn(2 * seconds, 128, generator=random) / 4,
        demo_truth(seconds),
    )
