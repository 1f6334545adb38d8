"""From a folder of safetensors to a running network: checked by its headers first, then streamed tensor by tensor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from salmonn_node.model.chat_format import overridden
from salmonn_node.model.checkpoint_cache import BUNDLED, TINY, find
from salmonn_node.model.checkpoint_config import Folder, read_folder
from salmonn_node.model.checkpoint_names import IGNORED, LORA, adapter_name, network_name, released_name
from salmonn_node.model.config import CONFIG_FILE, SalmonnConfig
from salmonn_node.model.network import Network
from salmonn_node.model.quantised_linear import quantised, replace
from salmonn_node.model.tiny import tiny_config
from salmonn_node.model.tokenizer import FileTokenizer
from salmonn_node.model.video_salmonn_s import CheckpointInfo, VideoSalmonnS

CARD = "README.md"
CALIBRATION = "calibration.json"
LISTED = 20
SAMPLE_BYTES = 1 << 16


class CheckpointError(ValueError):
    """Tensors do not fit the network; the message lists them."""


@dataclass(frozen=True)
class Entry:
    """A tensor in a file."""

    file: Path
    name: str
    shape: tuple[int, ...]


@dataclass
class Index:
    """Where each of the network's tensors lies.

    Attributes:
        entries: by the network's name.
        low_rank: (A, B) of the adapter, by the name of the weight they are added to.
        unexpected: names that have no place.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    low_rank: dict[str, dict[str, Entry]] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)


def load(checkpoint: str = TINY, device: str = "cpu", **changes: Any) -> VideoSalmonnS:
    """Load a network.

    Args:
        checkpoint: "tiny" (the one that comes with the package), a folder (ours, the release's, or a stock Qwen3-VL),
            or a short name or hub id that `salmonn checkpoint get` has downloaded.
        device: where the weights go.
        changes: fields of the configuration to replace.

    Raises:
        FileNotFoundError: it is not on this machine, or files of it are missing. Nothing is downloaded here.
        CheckpointError: tensors are missing, unexpected or of a wrong shape; raised before memory is taken.
        ValueError: a malformed configuration or tokenizer.
    """
    if checkpoint == TINY and not (BUNDLED / TINY / CONFIG_FILE).is_file():
        model = VideoSalmonnS.tiny(**changes)
        model.network.to(device)
        return model
    folder = read_folder(find(checkpoint))
    calibration = folder.path / CALIBRATION
    chat = overridden(folder.config.chat, calibration) if calibration.is_file() else folder.config.chat
    config = folder.config.replace(**{"chat": chat} | changes)
    tokenizer = FileTokenizer.from_folder(folder.weights)
    with torch.device("meta"):
        network = Network(config)
    index = index_of(folder)
    off = _switched_off(folder.config, config)
    index.entries = {name: entry for name, entry in index.entries.items() if not name.startswith(off)}
    check(network, index)
    _fill(network, index, folder, torch.device(device), getattr(torch, config.dtype))
    card = folder.path / CARD
    info = CheckpointInfo(
        digest(folder) + (f"-{config.weights}" if config.weights != "full" else ""),
        folder.name,
        folder.trained,
        card if card.is_file() else None,
        folder.missing,
        calibration if calibration.is_file() else None,
    )
    return VideoSalmonnS(config, network, tokenizer, info)


def config_of(checkpoint: str) -> SalmonnConfig:
    """The configuration of a checkpoint; no weights are read.

    Raises:
        FileNotFoundError: it is not on this machine.
        ValueError: a malformed configuration, or an unknown name.
    """
    if checkpoint == TINY and not (BUNDLED / TINY / CONFIG_FILE).is_file():
        return tiny_config()
    return read_folder(find(checkpoint)).config


def _switched_off(stored: SalmonnConfig, wanted: SalmonnConfig) -> tuple[str, ...]:
    """Prefixes of the parts that a checkpoint has and the caller wants to do without; their tensors stay unread."""
    parts = (
        ("ttt.", stored.ttt is not None and wanted.ttt is None),
        ("recall.", stored.recall and not wanted.recall),
        ("evidence.", stored.evidence_head and not wanted.evidence_head),
        ("audio.", stored.audio is not None and wanted.audio is None),
    )
    return tuple(prefix for prefix, off in parts if off)


def files_of(folder: Path) -> list[Path]:
    """Weight files, by name; pickled ones are not looked at.

    Raises:
        FileNotFoundError: there is no .safetensors file.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"checkpoint: {folder} has no .safetensors file")
    return files


def headers(file: Path) -> Iterator[Entry]:
    """Names and shapes of a file's tensors, from its header.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        with safe_open(file, "pt") as source:
            for name in source.keys():  # noqa: SIM118 - not a dict
                yield Entry(file, name, tuple(source.get_slice(name).get_shape()))
    except SafetensorError as error:
        raise CheckpointError(f"{file}: {error}") from None


def index_of(folder: Folder) -> Index:
    """Find a place for every tensor of a folder; nothing but headers is read."""
    index = Index()
    for file in files_of(folder.weights):
        for entry in headers(file):
            ours = network_name(entry.name)
            if ours is not None:
                index.entries[ours] = entry
            elif not IGNORED.search(entry.name):
                index.unexpected.append(entry.name)
    for file in files_of(folder.adapter) if folder.adapter else ():
        for entry in headers(file):
            name = adapter_name(entry.name)
            match = LORA.match(name)
            if match:
                layer, projection, side = match.groups()
                weight = f"language.decoder.layers.{layer}.self_attn.{projection}.weight"
                index.low_rank.setdefault(weight, {})[side] = entry
                continue
            ours = network_name(name)
            if ours is not None:
                index.entries[ours] = entry
            elif ".original_module." not in name:
                index.unexpected.append(entry.name)
    return index


def check(network: Network, index: Index) -> None:
    """Compare an index with a network (which may be on the meta device).

    Raises:
        CheckpointError: lists what is missing, unexpected or of a wrong shape.
    """
    want = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if network.config.tied_embeddings:
        want.pop("language.lm_head.weight", None)
    problems = [
        f"missing: {released_name(name)} {list(shape)}" for name, shape in want.items() if name not in index.entries
    ]
    extra = [e.name for name, e in index.entries.items() if name not in want and name != "language.lm_head.weight"]
    problems += [f"unexpected: {name}" for name in [*index.unexpected, *extra]]
    for name, entry in index.entries.items():
        if name in want and entry.shape != want[name]:
            problems.append(f"wrong shape: {entry.name} {list(entry.shape)}, expected {list(want[name])}")
    for name, pair in index.low_rank.items():
        shapes = {side: entry.shape for side, entry in pair.items()}
        out, width = want.get(name, (0, 0))
        if set(shapes) != {"A", "B"} or shapes["B"] != (out, shapes["A"][0]) or shapes["A"][1] != width:
            problems.append(f"wrong adapter for {released_name(name)} [{out}, {width}]: {shapes}")
    if problems:
        rest = f"\n  and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
        raise CheckpointError("the tensors do not fit the network:\n  " + "\n  ".join(problems[:LISTED]) + rest)


def _read(entry: Entry) -> Tensor:
    with safe_open(entry.file, "pt") as source:
        return source.get_tensor(entry.name)


def merged(weight: Tensor, low: Tensor, high: Tensor, scale: float) -> Tensor:
    """W + scale * B A: factors in the weight's dtype, product in fp32, rounded, then added, as the release does."""
    a, b = low.to(weight.dtype).float(), high.to(weight.dtype).float()
    return weight + (scale * (b @ a)).to(weight.dtype)


def _fill(network: Network, index: Index, folder: Folder, device: torch.device, dtype: torch.dtype) -> None:
    """Put each tensor where it belongs; the host holds one tensor beyond those that stay there."""
    weights = network.config.weights
    for name, entry in index.entries.items():
        if name == "language.lm_head.weight" and network.config.tied_embeddings:
            continue
        # A copy of our own: a mapped file's alignment would choose other kernels, and so other last bits.
        tensor = _read(entry).to(dtype, copy=True)
        if name in index.low_rank:
            pair = index.low_rank[name]
            tensor = merged(tensor, _read(pair["A"]), _read(pair["B"]), folder.scale)
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
    for file in [*files_of(folder.weights), *(files_of(folder.adapter) if folder.adapter else [])]:
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
        model: with a tokenizer that can be saved.
        folder: made if it does not exist.
        card: text of the model card.
        about: name, trained, and family (how it is asked, see `model/chat_format.py`); the model's own name by default.

    Raises:
        ValueError: quantised weights, or a tokenizer that cannot be saved.
    """
    if model.config.weights != "full":
        raise ValueError(f"model: its weights are in {model.config.weights}; load them in full to save them")
    folder.mkdir(parents=True, exist_ok=True)
    state = model.network.state_dict()
    if model.config.tied_embeddings:
        state.pop("language.lm_head.weight", None)
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
