"""Write a stock Qwen3-VL folder with random weights: a published size for measurements, or a tiny one for tests.

    python -m salmonn_node.lab.random_weights 2b /tmp/Qwen3-VL-2B-random

The folder has the tensor names, shapes and file layout of a published one. Its answers mean nothing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from salmonn_node.model.profiles import profile

# The published vocabulary: 151 643 ordinary tokens, then these, then rows of the embedding table that no text uses.
ORDINARY_TOKENS = 151_643
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# Renders a system turn, user turns and the opening of the answer like the published template.
CHAT_TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.content is string %}
        {{- message.content }}
    {%- else %}
        {%- for part in message.content %}
            {%- if part.type == 'video' %}
                {{- '<|vision_start|><|video_pad|><|vision_end|>' }}
            {%- else %}
                {{- part.text }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
CARD = """\
---
license: apache-2.0
---
Random weights in the shapes of {name}. Every answer means nothing.
"""
LEARN_FROM = Path(__file__).resolve().parents[1]
TINY = "tiny"


def write_folder(folder: Path, size: str = TINY, seed: int = 0, embeddings: int = 0) -> None:
    """Write a folder of random bfloat16 weights.

    Args:
        folder: created if it does not exist.
        size: "tiny", or a published size: "2b", "4b", "8b". The weights of 2b are 4.3 GB.
        seed: seed of the weights.
        embeddings: rows of the embedding table, if you want more than the vocabulary has.

    Raises:
        ValueError: the size is unknown.
    """
    from transformers import Qwen2Tokenizer, Qwen3VLConfig, Qwen3VLForConditionalGeneration

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = _vocabulary(0 if size == TINY else ORDINARY_TOKENS)
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges)
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL_TOKENS)})
    tokenizer.eos_token = "<|im_end|>"
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")}
    pads = {name: tokenizer.convert_tokens_to_ids(f"<|{name}_pad|>") for name in ("image", "video")}
    text, vision, tied = _shapes(size)
    text["vocab_size"] = max(text["vocab_size"], embeddings)
    config = Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=tied,
        image_token_id=pads["image"],
        video_token_id=pads["video"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
    )
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration._from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size=5_000_000_000)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(CARD.format(name=f"Qwen3-VL-{size.upper()}"))


def _shapes(size: str) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """Return arguments of transformers' text and vision configurations, and whether head and embeddings are tied."""
    if size != TINY:
        config = profile(f"qwen3_vl_{size}")
        return dict(config.text), dict(config.vision), config.tied_embeddings
    config = profile(TINY)
    text = dict(config.text) | {"vocab_size": 512 + len(SPECIAL_TOKENS)}
    return text, dict(config.vision), True


def _vocabulary(tokens: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Make a vocabulary: bytes, merges learned from this package's text, fillers up to `tokens` (0: bytes only)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=min(tokens, 20_000) or 512,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (path.read_text(encoding="utf-8") for path in sorted(LEARN_FROM.rglob("*.py")))
    tokenizer.train_from_iterator(texts, trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    vocabulary = dict(learned["vocab"])
    for number in range(len(vocabulary), tokens):
        vocabulary[f"<filler {number}>"] = number
    return vocabulary, [tuple(pair) for pair in learned["merges"]]


if __name__ == "__main__":
    write_folder(Path(sys.argv[2]), sys.argv[1])
