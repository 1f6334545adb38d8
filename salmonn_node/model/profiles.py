"""Profiles: configurations of named networks (video-SALMONN S as released, stock Qwen3-VL, the tiny network)."""

from __future__ import annotations

from typing import Any

from salmonn_node.model.checkpoint_config import RELEASED_TTT
from salmonn_node.model.config import AudioConfig, MemoryConfig, SalmonnConfig
from salmonn_node.model.tiny import tiny_config

# Largest first, with the published sizes. When you load a folder, its own config.json decides.
PROFILES = ("video_salmonn_s_8b", "qwen3_vl_8b", "qwen3_vl_4b", "qwen3_vl_2b", "tiny")
_TEXT = {  # width, feed-forward, layers, heads, tied
    "8b": (4096, 12288, 36, 32, False),
    "4b": (2560, 9728, 36, 32, True),
    "2b": (2048, 6144, 28, 16, True),
}
_VISION = {  # depth, width, feed-forward, deepstack layers
    "8b": (27, 1152, 4304, [8, 16, 24]),
    "4b": (24, 1024, 4096, [5, 11, 17]),
    "2b": (24, 1024, 4096, [5, 11, 17]),
}


def profile(name: str) -> SalmonnConfig:
    """Return the configuration of a profile.

    Raises:
        ValueError: there is no such profile.
    """
    if name == "tiny":
        return tiny_config()
    if name not in PROFILES:
        raise ValueError(f"profile: {name!r} is none of {', '.join(PROFILES)}")
    released = name == "video_salmonn_s_8b"
    size = name.rsplit("_", 1)[1]
    width, ffn, layers, heads, tied = _TEXT[size]
    depth, seen, seen_ffn, deepstack = _VISION[size]
    text: dict[str, Any] = {
        "vocab_size": 151_936,
        "hidden_size": width,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 262_144,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5_000_000.0,
            "mrope_section": [24, 20, 20],
            "mrope_interleaved": True,
        },
    }
    vision = {
        "depth": depth,
        "hidden_size": seen,
        "intermediate_size": seen_ffn,
        "num_heads": 16,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": width,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": deepstack,
    }
    return SalmonnConfig(
        name=name,
        vision=vision,
        text=text,
        audio=AudioConfig() if released else None,
        ttt=dict(RELEASED_TTT) if released else None,
        memory=MemoryConfig(visual_rule="paper" if released else "place"),
        tied_embeddings=tied,
    )
