"""Tiny network: its sizes and its tokenizer. It runs on any machine."""

from __future__ import annotations

from salmonn_node.model.config import AudioConfig, FrameConfig, MemoryConfig, SalmonnConfig
from salmonn_node.model.tokenizer import FileTokenizer, byte_tokenizer

VOCABULARY = 512
WORDS = (
    "where is the red green blue yellow white black orange purple box ball cup chair door person table lamp bottle",
    "when did you see last first hear what which room how many was there a an in of on to and not yes no unknown",
    "seconds kitchen office hall lab corridor left right near open closed doorbell phone alarm voice knock dog ring",
)


def tiny_config(**changes: object) -> SalmonnConfig:
    """Return the configuration of the tiny network. `changes` replaces fields."""
    config = SalmonnConfig(
        name="tiny",
        vision={
            "depth": 3,
            "hidden_size": 96,
            "intermediate_size": 384,
            "num_heads": 4,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": 128,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1, 2],
        },
        text={
            "vocab_size": VOCABULARY,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 32_768,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [8, 4, 4],
                "mrope_interleaved": True,
            },
        },
        audio=AudioConfig(
            d_model=96,
            layers=2,
            heads=4,
            ffn=384,
            mel_bins=64,
            window_s=10,
            qformer_hidden=96,
            qformer_layers=1,
            qformer_heads=4,
            qformer_ffn=192,
            mel_scaling="fixed",
        ),
        ttt={
            "num_heads": 4,
            "mini_batch": 64,
            "base_lr": 0.1,
            "lag_weight": 0.1,
            "lag_distance": 128,
            "optimizer": "hf",
            "cg_iterations": 1,
            "decay": 0.01,
        },
        frames=FrameConfig(max_pixels=160 * 96, min_pixels=1_024),
        memory=MemoryConfig(1_024, 256, 256, 64, "place", "merge"),
        tied_embeddings=True,
        evidence_head=True,
        recall=True,
        dtype="float32",
    )
    return config.replace(**changes)


def tiny_tokenizer() -> FileTokenizer:
    """Return the tokenizer of the tiny network."""
    return byte_tokenizer(WORDS, VOCABULARY)
