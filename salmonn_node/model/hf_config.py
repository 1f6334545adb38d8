"""Read `config.json` of a Qwen3-VL folder as transformers does, and refuse other kinds of network by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from salmonn_node.model.config import AudioConfig, MemoryConfig, SalmonnConfig

STOCK_TYPE, STOCK_TEXT_TYPE = "qwen3_vl", "qwen3_vl_text"
# Kinds of network that users try, with the names they know.
OTHERS = {
    "qwen3_vl_moe": "Qwen3-VL with a mixture of experts",
    "qwen2_5_vl": "Qwen2.5-VL",
    "qwen2_vl": "Qwen2-VL",
    "qwen2_5_omni": "Qwen2.5-Omni",
    "qwen3_omni_moe": "Qwen3-Omni",
    "llava_onevision": "LLaVA-OneVision",
    "internvl": "InternVL",
}
TEXT_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "attention_bias",
)
VISION_FIELDS = (
    "depth",
    "hidden_size",
    "hidden_act",
    "intermediate_size",
    "num_heads",
    "in_channels",
    "patch_size",
    "spatial_merge_size",
    "temporal_patch_size",
    "out_hidden_size",
    "num_position_embeddings",
    "deepstack_visual_indexes",
)
# Required fields: no published network uses transformers' defaults for them.
STATED = (
    ("text_config", ("vocab_size", "hidden_size", "num_hidden_layers")),
    ("vision_config", ("depth", "hidden_size", "out_hidden_size")),
)
DTYPES = ("float32", "bfloat16", "float16")
AUTO = "auto"
DEFAULT_THETA = 500_000.0


def hf_config(values: Mapping[str, Any], family: str) -> SalmonnConfig:
    """Read the configuration of a folder of the Qwen3-VL family, written by transformers 4 or 5.

    The dtype is "auto" if the folder does not state it.

    Args:
        values: content of `config.json`.
        family: first part of the network's name; the sizes follow. The folder's name is not part of it, so you may
            move or rename a checkpoint.

    Raises:
        ValueError: the network is of another kind, has quantised weights, or lacks parts.
    """
    from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig, Qwen3VLVisionConfig

    refuse_others(values)
    text, vision = values.get("text_config"), values.get("vision_config")
    if not isinstance(text, Mapping) or not isinstance(vision, Mapping):
        raise ValueError("config.json: expected text_config and vision_config, as Qwen3-VL has them")
    parts = {"text_config": text, "vision_config": vision}
    missing = [f"{part}.{f}" for part, needed in STATED for f in needed if parts[part].get(f) is None]
    if missing:
        raise ValueError(f"config.json: {', '.join(missing)} missing")
    if vision.get("temporal_patch_size", 2) != 2 or vision.get("in_channels", 3) != 3:
        raise ValueError("config.json: vision_config: expected patches of two colour frames")
    return SalmonnConfig(
        name=f"{family}_{text['hidden_size']}x{text['num_hidden_layers']}",
        vision=_fields("vision_config", vision, VISION_FIELDS, Qwen3VLVisionConfig),
        text=_fields("text_config", text, TEXT_FIELDS, Qwen3VLTextConfig) | {"rope_parameters": rope(text)},
        audio=_audio(values["audio_config"]) if isinstance(values.get("audio_config"), Mapping) else None,
        memory=MemoryConfig(),
        tied_embeddings=bool(values.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
        dtype=_dtype(values, text),
    )


def refuse_others(values: Mapping[str, Any]) -> None:
    """Raise ValueError if the network is not Qwen3-VL (the message names its kind) or has quantised weights."""
    text = values.get("text_config")
    text = text if isinstance(text, Mapping) else {}
    for kind, expected in ((values.get("model_type"), STOCK_TYPE), (text.get("model_type"), STOCK_TEXT_TYPE)):
        if kind not in (None, expected):
            known = OTHERS.get(str(kind).removesuffix("_text"))
            what = f"{kind!r} ({known})" if known else repr(kind)
            raise ValueError(
                f"config.json: model_type {what} is not supported; expected {expected!r}: Qwen3-VL 2B, 4B or 8B, "
                "a network fine-tuned from one, or video-SALMONN S"
            )
    for part in (values, text):
        for key in ("quantization_config", "compression_config"):
            given = part.get(key)
            if given:
                method = given.get("quant_method", "unknown") if isinstance(given, Mapping) else given
                raise ValueError(
                    f"config.json: the weights are quantised ({method}), which is not supported; get the checkpoint in "
                    "full precision and choose 8 or 4 bits when loading it"
                )


def rope(text: Mapping[str, Any]) -> dict[str, Any]:
    """Read the rotary parameters of `text_config` as transformers' `convert_rope_params_to_dict` does.

    `rope_scaling` (transformers 4) overrides `rope_parameters` (5). A `rope_theta` inside overrides one beside them.
    """
    given = dict(text.get("rope_scaling") or text.get("rope_parameters") or {})
    kind = given.pop("rope_type", given.pop("type", "default"))
    given.pop("type", None)
    beside = text.get("rope_theta")
    return {
        "mrope_section": [24, 20, 20],
        "rope_theta": DEFAULT_THETA if beside is None else float(beside),
        **given,
        "rope_type": "default" if kind == "mrope" else kind,
        "mrope_interleaved": True,
    }


def _fields(part: str, given: Mapping[str, Any], names: tuple[str, ...], kind: Callable[..., Any]) -> dict[str, Any]:
    """Return the named fields of a part. transformers' configuration class checks them and fills in defaults."""
    try:
        resolved = kind(**{name: given[name] for name in names if name in given})
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise ValueError(f"config.json: {part}: {' '.join(str(error).split())}") from None
    return {name: getattr(resolved, name) if given.get(name) is None else given[name] for name in names}


def _dtype(values: Mapping[str, Any], text: Mapping[str, Any]) -> str:
    """Return the stated dtype of the weights, or "auto"."""
    stated = values.get("dtype") or values.get("torch_dtype") or text.get("dtype") or text.get("torch_dtype") or AUTO
    name = str(stated).removeprefix("torch.")
    if name not in (*DTYPES, AUTO):
        raise ValueError(f"config.json: dtype {name!r} is not supported; expected one of {', '.join((*DTYPES, AUTO))}")
    return name


def _audio(values: Mapping[str, Any]) -> AudioConfig:
    """Read the sizes of the audio tower from the release's `audio_config`. Defaults are those of Whisper-large-v3."""
    default, inner = AudioConfig(), values.get("qformer_config") or {}
    return AudioConfig(
        d_model=values.get("d_model", default.d_model),
        layers=values.get("encoder_layers", default.layers),
        heads=values.get("encoder_attention_heads", default.heads),
        ffn=values.get("encoder_ffn_dim", default.ffn),
        mel_bins=values.get("num_mel_bins", default.mel_bins),
        window_s=values.get("max_source_positions", 1500) // 50,
        qformer_hidden=inner.get("hidden_size", default.qformer_hidden),
        qformer_layers=inner.get("num_hidden_layers", default.qformer_layers),
        qformer_heads=inner.get("num_attention_heads", default.qformer_heads),
        qformer_ffn=inner.get("intermediate_size", default.qformer_ffn),
    )
