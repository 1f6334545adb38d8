"""What a checkpoint folder says about its network: ours, the release's two folders, or a stock Qwen3-VL folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salmonn_node.model.chat_format import chat_format
from salmonn_node.model.checkpoint_cache import origin
from salmonn_node.model.config import CONFIG_FILE, AudioConfig, MemoryConfig, SalmonnConfig

STOCK, RELEASE = "qwen3_vl", "video_salmonn_s"
BASE, ADAPTER = "base", "video_salmonn_s_ttt_lora"
# The release's settings that its configuration does not name; `W1` gives heads and widths.
RELEASED_TTT = {"num_heads": 8, "mini_batch": 1024, "base_lr": 0.1, "lag_weight": 0.1, "lag_distance": 1024}
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


@dataclass(frozen=True)
class Folder:
    """A checkpoint folder that has been understood.

    Attributes:
        kind: "own", "release" or "qwen3_vl".
        path: the folder.
        config: of its network, in streaming mode.
        weights: folder of the base weights and of the tokenizer.
        family: how the network is asked: a file of `model/chat_formats/`.
        adapter: folder of the release's adapter, or None.
        scale: factor of the adapter's low-rank product, alpha / r.
        name: for people; the hub's name for a folder in its cache.
        commit: of the hub, "" for a folder from elsewhere.
        trained: what an own folder says of its weights; True for the others.
        missing: what the network cannot do for lack of weights.
    """

    kind: str
    path: Path
    config: SalmonnConfig
    weights: Path
    family: str
    adapter: Path | None = None
    scale: float = 0.0
    name: str = ""
    trained: bool = True
    missing: tuple[str, ...] = ()
    commit: str = ""


def read_folder(path: Path) -> Folder:
    """Find out what a folder holds.

    Raises:
        FileNotFoundError: no configuration, or half of the release.
        ValueError: a configuration that is malformed or of another network.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"checkpoint: {path} is not a folder")
    if (path / BASE).is_dir() or (path / ADAPTER).is_dir():
        return _release(path)
    values = _json(path / CONFIG_FILE)
    hub_name, commit = origin(path)
    if "salmonn_node" in values:
        about = values.get("checkpoint", {})
        config = SalmonnConfig.from_dict(values["salmonn_node"])
        name, trained = str(about.get("name", hub_name)), bool(about.get("trained", False))
        family = str(about.get("family", "tiny"))
        config = config.replace(chat=chat_format(family))
        missing = _missing(config)
        return Folder("own", path, config, path, family, name=name, trained=trained, missing=missing, commit=commit)
    config = hf_config(values, hub_name).replace(chat=chat_format(STOCK))
    if config.ttt is None:
        # Without fast weights the discard rule is all there is: `place` is the one that keeps what changed.
        config = config.replace(memory=dataclasses.replace(config.memory, visual_rule="place"))
    return Folder("qwen3_vl", path, config, path, STOCK, name=hub_name, missing=_missing(config), commit=commit)


def _release(path: Path) -> Folder:
    for part in (BASE, ADAPTER):
        if not (path / part).is_dir():
            raise FileNotFoundError(f"checkpoint: {path} has no folder {part}")
    values = _json(path / BASE / CONFIG_FILE)
    adapter = _json(path / ADAPTER / "adapter_config.json")
    try:
        rank, alpha = int(adapter["r"]), float(adapter["lora_alpha"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path / ADAPTER}/adapter_config.json: needs r and lora_alpha") from None
    for name in ("use_dora", "alpha_pattern", "rank_pattern"):
        if adapter.get(name):
            raise ValueError(f"{path / ADAPTER}/adapter_config.json: {name} is not supported")
    scale = alpha / (rank**0.5 if adapter.get("use_rslora") else rank)
    ttt = dict(RELEASED_TTT) | {k: values[k] for k in ("num_heads", "mini_batch") if isinstance(values.get(k), int)}
    name, commit = origin(path)
    config = hf_config(values, name).replace(ttt=ttt, chat=chat_format(RELEASE))
    if config.audio is None:
        config = config.replace(audio=AudioConfig())
    return Folder("release", path, config, path / BASE, RELEASE, path / ADAPTER, scale, name=name, commit=commit)


def hf_config(values: Mapping[str, Any], name: str) -> SalmonnConfig:
    """The configuration of a Hugging Face folder of the Qwen3-VL family, of transformers 4 or 5.

    Raises:
        ValueError: parts are missing.
    """
    text, vision = values.get("text_config"), values.get("vision_config")
    if not isinstance(text, Mapping) or not isinstance(vision, Mapping):
        kind = values.get("model_type", "unknown")
        raise ValueError(f"config.json: no text_config and vision_config; model_type {kind!r} is not of this family")
    missing = [f"text_config.{f}" for f in ("vocab_size", "hidden_size", "num_hidden_layers") if f not in text]
    missing += [f"vision_config.{f}" for f in ("depth", "hidden_size", "out_hidden_size") if f not in vision]
    if missing:
        raise ValueError(f"config.json: {', '.join(missing)} missing")
    tied = bool(values.get("tie_word_embeddings", text.get("tie_word_embeddings", False)))
    return SalmonnConfig(
        name=name,
        vision={f: vision[f] for f in VISION_FIELDS if f in vision},
        text={f: text[f] for f in TEXT_FIELDS if text.get(f) is not None} | {"rope_parameters": rope(text)},
        audio=_audio(values["audio_config"]) if isinstance(values.get("audio_config"), Mapping) else None,
        memory=MemoryConfig(),
        tied_embeddings=tied,
        dtype=str(values.get("dtype") or values.get("torch_dtype") or text.get("dtype") or "bfloat16"),
    )


def rope(text: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary parameters; older configurations have `rope_theta` and `rope_scaling` instead."""
    given = text.get("rope_parameters")
    if isinstance(given, Mapping):
        return {"rope_type": "default", "mrope_interleaved": True} | dict(given)
    scaling = dict(text.get("rope_scaling") or {})
    kind = scaling.pop("rope_type", scaling.pop("type", "default"))
    return {
        "rope_type": "default" if kind == "mrope" else kind,
        "rope_theta": float(text.get("rope_theta", 5_000_000.0)),
        "mrope_section": scaling.pop("mrope_section", [24, 20, 20]),
        "mrope_interleaved": True,
        **{k: v for k, v in scaling.items() if k != "mrope_interleaved"},
    }


def _audio(values: Mapping[str, Any]) -> AudioConfig:
    """Sizes of the audio tower from the release's `audio_config`, Whisper-large-v3's where it is silent."""
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


def _missing(config: SalmonnConfig) -> tuple[str, ...]:
    parts = []
    if config.ttt is None:
        parts.append("no fast weights: what the token memory drops is gone")
    if config.audio is None:
        parts.append("no audio tower: sound is not taken in")
    return tuple(parts)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint: {path} does not exist")
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected an object")
    return values
