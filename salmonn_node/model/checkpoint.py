"""Load a checkpoint: check the safetensors headers of a folder first, then stream the tensors one by one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from salmonn_node.memory.event_heads import EventHeads
from salmonn_node.model.chat_format import overridden
from salmonn_node.model.checkpoint_cache import BUNDLED, TINY, find
from salmonn_node.model.checkpoint_config import Folder, read_folder
from salmonn_node.model.checkpoint_files import CheckpointError, weight_files
from salmonn_node.model.checkpoint_index import HEAD, LISTED, TensorIndex, check, index_of, tied
from salmonn_node.model.checkpoint_names import released_name
from salmonn_node.model.config import CONFIG_FILE, SalmonnConfig
from salmonn_node.model.event_parts import EVENT_HEADS, EventParts
from salmonn_node.model.network import Network
from salmonn_node.model.own_calibration import calibration_of
from salmonn_node.model.quantised_linear import quantised, replace
from salmonn_node.model.tiny import tiny_config
from salmonn_node.model.tokenizer import FileTokenizer
from salmonn_node.model.video_salmonn_s import CheckpointInfo, VideoSalmonnS

CARD = "README.md"
SAMPLE_BYTES = 1 << 16


@dataclass
class Prepared:
    """A checkpoint that fits its network; no weights have been read.

    Attributes:
        config: configuration of the network to run.
        network: the network on the meta device.
        tokenizer: tokenizer of the folder.
        index: file and name of each tensor.
        id: digest that identifies the weights as they will run.
        calibration: path of the calibration to use, None when there is none.
    """

    config: SalmonnConfig
    network: Network
    tokenizer: FileTokenizer
    index: TensorIndex
    id: str
    calibration: Path | None


def load(checkpoint: str = TINY, device: str = "cpu", *, read_events: bool = True, **changes: Any) -> VideoSalmonnS:
    """Load a network.

    Args:
        checkpoint: "tiny" (comes with the package), a folder (ours, the release's, or a stock Qwen3-VL), or a short
            name or hub id that you downloaded with `salmonn checkpoint get`.
        device: device of the weights.
        read_events: answer from events where the checkpoint brings what that needs, see `model/event_parts.py`.
        changes: configuration fields to replace.

    Raises:
        FileNotFoundError: the checkpoint or some of its files are not on this machine. Nothing is downloaded here.
        CheckpointError: tensors are missing, unexpected or have the wrong shape. Raised before memory is allocated.
        ValueError: the configuration or the tokenizer is malformed.
    """
    if checkpoint == TINY and not (BUNDLED / TINY / CONFIG_FILE).is_file():
        model = VideoSalmonnS.tiny(**changes)
        model.network.to(device)
        return model
    folder = read_folder(find(checkpoint))
    ready = prepare(folder, **changes)
    config, network = ready.config, ready.network
    _fill(network, ready.index, folder, torch.device(device), getattr(torch, config.dtype))
    card = folder.path / CARD
    info = CheckpointInfo(
        ready.id,
        folder.name,
        folder.trained,
        card if card.is_file() else None,
        folder.missing,
        ready.calibration,
    )
    parts = EventParts.load(folder.path) if read_events else None
    return VideoSalmonnS(config, network, ready.tokenizer, info, _event_heads(folder, config), parts)


def _event_heads(folder: Folder, config: SalmonnConfig) -> EventHeads | None:
    """The read-outs that the discard rule `events` needs, None where another rule is used."""
    if "events" not in (config.memory.visual_rule, config.memory.audio_rule):
        return None
    path = folder.path / EVENT_HEADS
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint: the discard rule `events` needs {path}, which is not there")
    return EventHeads.load(path)


def event_heads(checkpoint: str) -> EventHeads | None:
    """The read-outs of events that come with a checkpoint, None where there are none. Raises as `load` does."""
    if checkpoint == TINY and not (BUNDLED / TINY / CONFIG_FILE).is_file():
        return None
    path = read_folder(find(checkpoint)).path / EVENT_HEADS
    return EventHeads.load(path) if path.is_file() else None


def prepare(folder: Folder, **changes: Any) -> Prepared:
    """Check that the files of a folder make up a network. `load` does this first. A folder that passes also loads.

    Args:
        folder: folder of the checkpoint.
        changes: configuration fields to replace. Parts that you switch off are not required.

    Raises:
        FileNotFoundError: files are missing.
        CheckpointError: tensors are missing, unexpected, of a wrong shape or of a type that cannot be loaded.
        ValueError: a malformed tokenizer or calibration file.
    """
    tokenizer = FileTokenizer.from_folder(folder.weights)
    vocabulary = folder.config.replace(**changes).text["vocab_size"]
    if tokenizer.largest_id >= vocabulary:
        raise CheckpointError(
            f"{folder.weights}: the tokenizer has ids up to {tokenizer.largest_id}, "
            f"but the network knows {vocabulary} tokens"
        )
    index = index_of(folder)
    kind = changes.get("weights", folder.config.weights)
    name = digest(folder) + (f"-{kind}" if kind != "full" else "")
    calibration = calibration_of(folder.path, name, kind)
    chat = folder.config.chat if calibration is None else overridden(folder.config.chat, calibration)
    config = folder.config.replace(**{"chat": chat} | changes)
    off = _switched_off(folder.config, config)
    index.entries = {name: entry for name, entry in index.entries.items() if not name.startswith(off)}
    config = config.replace(tied_embeddings=tied(index, config.tied_embeddings))
    with torch.device("meta"):
        network = Network(config)
    check(network, index)
    return Prepared(config, network, tokenizer, index, name, calibration)


def config_of(checkpoint: str) -> SalmonnConfig:
    """Read the configuration of a checkpoint without its weights.

    Raises:
        FileNotFoundError: it is not on this machine.
        ValueError: a malformed configuration, or an unknown name.
    """
    if checkpoint == TINY and not (BUNDLED / TINY / CONFIG_FILE).is_file():
        return tiny_config()
    return read_folder(find(checkpoint)).config


def _switched_off(stored: SalmonnConfig, wanted: SalmonnConfig) -> tuple[str, ...]:
    """Prefixes of parts that the checkpoint has and the caller switches off. Their tensors are not read."""
    parts = (
        ("ttt.", stored.ttt is not None and wanted.ttt is None),
        ("recall.", stored.recall and not wanted.recall),
        ("evidence.", stored.evidence_head and not wanted.evidence_head),
        ("audio.", stored.audio is not None and wanted.audio is None),
    )
    return tuple(prefix for prefix, off in parts if off)


def merged(weight: Tensor, low: Tensor, high: Tensor, scale: float) -> Tensor:
    """Compute W + scale * B A as the release does: product of the factors in fp32, rounded to W's dtype, added."""
    a, b = low.to(weight.dtype).float(), high.to(weight.dtype).float()
    return weight + (scale * (b @ a)).to(weight.dtype)


def _fill(network: Network, index: TensorIndex, folder: Folder, device: torch.device, dtype: torch.dtype) -> None:
    """Put each tensor into the network. The host holds at most one extra tensor at a time."""
    weights = network.config.weights
    for name, entry in index.entries.items():
        if name == HEAD and network.config.tied_embeddings:
            continue
        # Copy: a memory-mapped tensor may have another alignment, so other kernels run and the last bits differ.
        tensor = entry.read().to(dtype, copy=True)
        if name in index.low_rank:
            pair = index.low_rank[name]
            tensor = merged(tensor, pair["A"].read(), pair["B"].read(), folder.scale)
        owner, _, leaf = name.rpartition(".")
        if weights != "full" and leaf == "weight" and quantised(owner, network.get_submodule(owner)):
            replace(network, owner, tensor.to(device), weights)
            continue
        parameter = nn.Parameter(tensor.to(device), requires_grad=False)
        setattr(network.get_submodule(owner), leaf, parameter)
    if network.config.tied_embeddings:
        network.language.lm_head.weight = network.language.decoder.embed_tokens.weight
    _rebuild_buffers(network, device)


def _rebuild_buffers(network: Network, device: torch.device) -> None:
    """Buffers that no checkpoint holds were made on the meta device: their modules are made anew."""
    for name, module in list(network.named_modules()):
        if any(b.is_meta for b in module.buffers(recurse=False)):
            owner, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(owner), leaf, type(module)(module.config).to(device))
    left = [n for n, t in [*network.named_parameters(), *network.named_buffers()] if t.is_meta]
    if left:
        raise CheckpointError(f"left without values: {', '.join(left[:LISTED])}")


def digest(folder: Folder) -> str:
    """Twelve hex digits over sizes, headers and samples of the weight files and the configuration."""
    sha = hashlib.sha256(json.dumps(folder.config.to_dict(), sort_keys=True, default=str).encode())
    for file in [*weight_files(folder.weights), *(weight_files(folder.adapter) if folder.adapter else [])]:
        size = file.stat().st_size
        sha.update(f"{file.name} {size}".encode())
        with file.open("rb") as source:
            for i in range(17):
                source.seek(max(0, (size - SAMPLE_BYTES) * i // 16))
                sha.update(source.read(SAMPLE_BYTES))
    return sha.hexdigest()[:12]


def save(model: VideoSalmonnS, folder: Path, card: str = "", about: dict[str, Any] | None = None) -> None:
    """Write our own folder: config.json, tokenizer.json, model.safetensors, and a model card.

    Args:
        model: the network. Its tokenizer must be one that can be saved.
        folder: created if it does not exist.
        card: text of the model card.
        about: name, trained, and family (the chat format). The name defaults to the model's own.

    Raises:
        ValueError: quantised weights, or a tokenizer that cannot be saved.
    """
    if model.config.weights != "full":
        raise ValueError(f"model: its weights are in {model.config.weights}; load them in full to save them")
    folder.mkdir(parents=True, exist_ok=True)
    state = model.network.state_dict()
    if model.config.tied_embeddings:
        state.pop(HEAD, None)
    tensors = {released_name(name): tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    values = {
        "salmonn_node": model.config.to_dict(),
        "checkpoint": about or {"name": model.checkpoint.name, "trained": model.checkpoint.trained},
    }
    (folder / CONFIG_FILE).write_text(json.dumps(values, indent=1, sort_keys=True, default=list) + "\n")
    if not isinstance(model.tokenizer, FileTokenizer):
        raise ValueError("model: its tokenizer cannot be saved")
    model.tokenizer.save(folder)
    if card:
        (folder / CARD).write_text(card)
