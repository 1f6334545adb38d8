"""Small towers of the real classes, and one cache with plans that TensorRT-RTX really built."""

from __future__ import annotations

import pytest
import torch

from salmonn_node.engines.build import build_engine
from salmonn_node.engines.cache import EngineCache
from salmonn_node.engines.networks import Towers, random_towers
from salmonn_node.engines.request import Request
from salmonn_node.model.config import AudioConfig, SalmonnConfig

GRID = (4, 6)


def small_config() -> SalmonnConfig:
    return SalmonnConfig(
        name="small",
        vision={
            "depth": 2,
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_heads": 4,
            "patch_size": 16,
            "out_hidden_size": 64,
            "num_position_embeddings": 36,
            "deepstack_visual_indexes": [0, 1],
        },
        text={"hidden_size": 64},
        audio=AudioConfig(
            d_model=32,
            layers=1,
            heads=2,
            ffn=64,
            mel_bins=16,
            window_s=1,
            qformer_hidden=48,
            qformer_layers=1,
            qformer_heads=3,
            qformer_ffn=96,
        ),
        dtype="float32",
    )


@pytest.fixture(scope="session")
def towers() -> Towers:
    found = random_towers(small_config(), seed=1)
    generator = torch.Generator().manual_seed(2)
    for tower in (found.vision, found.audio):
        for (
            parameter
        ) in tower.parameters():  # larger than the initial 0.02, so that every layer matters in a comparison
            if parameter.dim() > 1:
                scale = parameter[0].numel() ** -0.5
                parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return found


@pytest.fixture(scope="session")
def built(towers, tmp_path_factory):
    """A cache with the vision and the audio plan (bf16), and what building them said."""
    cache = EngineCache(tmp_path_factory.mktemp("engines"))
    lines: list[str] = []
    vision = build_engine(Request(towers.vision, "small", GRID, flavour="tensorrt_rtx"), cache, lines.append)
    audio = build_engine(Request(towers.audio, "small", None, flavour="tensorrt_rtx"), cache, lines.append)
    return cache, vision, audio, lines
