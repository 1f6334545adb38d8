"""Sizes of the tiny network. docs/tiny.md explains the choices."""

from __future__ import annotations

from dataclasses import replace

from salmonn_node.lab.world.layout import ROOMS
from salmonn_node.lab.world.objects import COLOURS, PERSON, SHAPES
from salmonn_node.lab.world.phrasings import TEMPLATES
from salmonn_node.lab.world.sounds import SOUNDS, SPOKEN
from salmonn_node.model.config import FrameConfig, MemoryConfig, SalmonnConfig
from salmonn_node.model.tiny import tiny_config
from salmonn_node.model.tokenizer import FileTokenizer, byte_tokenizer

VOCABULARY = 768
# Frames of 128 x 72 and of 640 x 360 both become 128 x 64 pixels: 2 x 4 tokens per temporal patch.
FRAME_PX = 10_240
GRID = (2, 4)
MINI_BATCH = 64


def network_config(**changes: object) -> SalmonnConfig:
    """Return the configuration that is trained and shipped."""
    config = tiny_config()
    assert config.audio is not None
    assert config.ttt is not None
    head_dim = config.hidden_size // int(config.ttt["num_heads"])
    return config.replace(
        vision={**config.vision, "deepstack_visual_indexes": [1]},
        text={**config.text, "vocab_size": VOCABULARY, "max_position_embeddings": 16_384},
        audio=replace(config.audio, window_s=4),
        # With this base_lr, the learned rate of a token is the fraction of a Gauss-Newton step.
        ttt={**config.ttt, "mini_batch": MINI_BATCH, "base_lr": float(head_dim * MINI_BATCH), "rotary": False},
        frames=FrameConfig(max_pixels=FRAME_PX, min_pixels=1_024),
        memory=MemoryConfig(
            visual_tokens=512, audio_tokens=128, visual_step=32, audio_step=32, visual_rule="ends", audio_rule="ends"
        ),
        max_time_marks=16,
    ).replace(**changes)


def tokenizer() -> FileTokenizer:
    """Make a byte-level tokenizer with merges from the world's words, so that most words are one token."""
    words = [*ROOMS, *COLOURS, *SHAPES, PERSON, *SPOKEN.values(), *(s + "s" for s in SHAPES)]
    texts = [t for templates in TEMPLATES.values() for t in templates[:-1]]
    texts += [f" {w}" for w in words] * 8 + words * 4 + [s.title for s in SOUNDS.values()] * 4
    texts += ["yes no", "seconds", " seconds", "unknown", "open shut", "person in", "crosses", "knocks beeps barks"] * 8
    texts += ["user\n", "assistant\n", "<", " seconds>", ".0", ".5"] * 40
    return byte_tokenizer(texts, VOCABULARY)
