"""Tensor names: map names of the release and of stock Qwen3-VL folders to names in our network, and back."""

from __future__ import annotations

import re

LORA = re.compile(r"^model\.language_model\.layers\.(\d+)\.self_attn\.([qkv]_proj)\.lora_([AB])(?:\.\w+)?\.weight$")
# Buffers in older files that nothing reads.
IGNORED = re.compile(r"(embeddings\.position_ids|rotary_emb\.inv_freq)$")
_AUDIO_OWN = ("q_tokens", "audio_proj.", "qformer.")


def network_name(name: str) -> str | None:
    """Map a released name to ours, such as `model.visual.x` -> `vision.visual.x`. None if we have no such tensor."""
    for prefix, ours in (
        ("model.visual.", "vision.visual."),
        ("model.language_model.", "language.decoder."),
        ("model.ttt_layers.ttt.", "ttt."),
        ("model.ttt_gating.", "ttt."),
        ("lm_head.", "language.lm_head."),
        ("model.evidence.", "evidence."),
        ("model.recall.", "recall."),
    ):
        if name.startswith(prefix):
            return ours + name[len(prefix) :]
    if name.startswith("model.audio."):
        rest = name[len("model.audio.") :]
        return f"audio.{rest}" if rest.startswith(_AUDIO_OWN) else f"audio.encoder.{rest}"
    return None


def released_name(name: str) -> str:
    """The inverse of `network_name`."""
    for ours, prefix in (
        ("vision.visual.", "model.visual."),
        ("language.decoder.", "model.language_model."),
        ("language.lm_head.", "lm_head."),
        ("audio.encoder.", "model.audio."),
        ("audio.", "model.audio."),
        ("evidence.", "model.evidence."),
        ("recall.", "model.recall."),
    ):
        if name.startswith(ours):
            return prefix + name[len(ours) :]
    if name == "ttt.gating_alpha":
        return "model.ttt_gating.gating_alpha"
    if name.startswith("ttt."):
        return "model.ttt_layers.ttt." + name[4:]
    raise ValueError(f"{name} is no tensor of the network")


def adapter_name(name: str) -> str:
    """Remove PEFT's prefix and `modules_to_save` infix from an adapter's tensor name."""
    name = name.removeprefix("base_model.model.")
    return re.sub(r"\.modules_to_save(\.default)?\.", ".", name).replace(".base_layer.", ".")
