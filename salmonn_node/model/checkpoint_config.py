"""Read a checkpoint folder and its configuration: ours, the release's two folders, or a stock Qwen3-VL folder."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salmonn_node.model.chat_format import chat_format
from salmonn_node.model.checkpoint_cache import origin
from salmonn_node.model.checkpoint_files import refuse_pointer, stored_dtype
from salmonn_node.model.config import CONFIG_FILE, AudioConfig, SalmonnConfig
from salmonn_node.model.hf_config import AUTO, hf_config

STOCK, RELEASE = "qwen3_vl", "video_salmonn_s"
BASE, ADAPTER, ADAPTER_FILE = "base", "video_salmonn_s_ttt_lora", "adapter_config.json"
# Settings that the release's configuration does not name. The shape of `W1` gives heads and widths.
RELEASED_TTT = {"num_heads": 8, "mini_batch": 1024, "base_lr": 0.1, "lag_weight": 0.1, "lag_distance": 1024}


@dataclass(frozen=True)
class Folder:
    """Description of a checkpoint folder.

    Attributes:
        kind: "own", "release" or "qwen3_vl".
        path: the folder.
        config: configuration of its network, in streaming mode.
        weights: folder of the base weights and of the tokenizer.
        family: chat format of the network, a file of `model/chat_formats/`.
        adapter: folder of the release's adapter, or None.
        scale: factor of the adapter's low-rank product, alpha / r.
        name: name to show to users. For a folder in the hub's cache, the hub id.
        commit: commit on the hub, "" for a folder from elsewhere.
        trained: whether the weights are trained, as one of our folders states. True for other folders.
        missing: abilities that the network lacks because weights are missing.
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
    """Find out which kind of checkpoint a folder holds.

    Raises:
        FileNotFoundError: the configuration is missing, or one of the release's two folders is.
        ValueError: the configuration is malformed, or of another kind of network.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"checkpoint: {path} is not a folder")
    if (path / BASE).is_dir() or (path / ADAPTER).is_dir():
        return _release(path)
    if (path / ADAPTER_FILE).is_file() and not (path / CONFIG_FILE).is_file():
        raise ValueError(f"checkpoint: {path} is an adapter alone; merge it into its base with PEFT and save that")
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
    config = _typed(hf_config(values, STOCK), path).replace(chat=chat_format(STOCK))
    if config.ttt is None:
        # Without fast weights, only the discard rule decides what is remembered. `place` keeps what changed.
        config = config.replace(memory=dataclasses.replace(config.memory, visual_rule="place"))
    return Folder("qwen3_vl", path, config, path, STOCK, name=hub_name, missing=_missing(config), commit=commit)


def _release(path: Path) -> Folder:
    for part in (BASE, ADAPTER):
        if not (path / part).is_dir():
            raise FileNotFoundError(f"checkpoint: {path} has no folder {part}")
    values = _json(path / BASE / CONFIG_FILE)
    adapter = _json(path / ADAPTER / ADAPTER_FILE)
    try:
        rank, alpha = int(adapter["r"]), float(adapter["lora_alpha"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path / ADAPTER / ADAPTER_FILE}: needs r and lora_alpha") from None
    for name in ("use_dora", "alpha_pattern", "rank_pattern"):
        if adapter.get(name):
            raise ValueError(f"{path / ADAPTER / ADAPTER_FILE}: {name} is not supported")
    scale = alpha / (rank**0.5 if adapter.get("use_rslora") else rank)
    ttt = dict(RELEASED_TTT) | {k: values[k] for k in ("num_heads", "mini_batch") if isinstance(values.get(k), int)}
    name, commit = origin(path)
    config = _typed(hf_config(values, RELEASE), path / BASE).replace(ttt=ttt, chat=chat_format(RELEASE))
    if config.audio is None:
        config = config.replace(audio=AudioConfig())
    return Folder("release", path, config, path / BASE, RELEASE, path / ADAPTER, scale, name=name, commit=commit)


def _typed(config: SalmonnConfig, weights: Path) -> SalmonnConfig:
    """Replace the dtype "auto" by the dtype of the stored weights."""
    return config.replace(dtype=stored_dtype(weights)) if config.dtype == AUTO else config


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
    refuse_pointer(path)
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected an object")
    return values
