"""Tensor index: map the tensors of a checkpoint's files to the network, and list those that do not fit."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from salmonn_node.model.checkpoint_config import Folder
from salmonn_node.model.checkpoint_files import STORED, CheckpointError, StoredTensor, headers, weight_files
from salmonn_node.model.checkpoint_names import IGNORED, LORA, adapter_name, network_name, released_name
from salmonn_node.model.network import Network

HEAD, EMBEDDING = "language.lm_head.weight", "language.decoder.embed_tokens.weight"
LISTED = 20


@dataclass
class TensorIndex:
    """Location of each tensor of the network.

    Attributes:
        entries: stored tensors, by their name in the network.
        low_rank: the adapter's "A" and "B", by the name of the weight to which their product is added.
        unexpected: tensors that have no place in the network.
    """

    entries: dict[str, StoredTensor] = field(default_factory=dict)
    low_rank: dict[str, dict[str, StoredTensor]] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)


def index_of(folder: Folder) -> TensorIndex:
    """Find a place for every tensor of a folder. Only headers are read.

    Raises:
        FileNotFoundError, CheckpointError: see `checkpoint_files.weight_files` and `headers`.
    """
    index = TensorIndex()
    for file in weight_files(folder.weights):
        for entry in headers(file):
            ours = network_name(entry.name)
            if ours is not None:
                index.entries[ours] = entry
            elif not IGNORED.search(entry.name):
                index.unexpected.append(entry.name)
    for file in weight_files(folder.adapter) if folder.adapter else ():
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


def tied(index: TensorIndex, tied_embeddings: bool) -> bool:
    """Whether output head and embedding table are one tensor. The rule is that of transformers.

    They are not tied if the files hold two different tensors, even if the configuration ties them. If the files hold
    only the head, it also becomes the table.
    """
    if not tied_embeddings:
        return False
    if EMBEDDING not in index.entries and HEAD in index.entries:
        index.entries[EMBEDDING] = index.entries[HEAD]
    head, table = index.entries.get(HEAD), index.entries.get(EMBEDDING)
    if head is None or table is None or head == table:
        return True
    if (head.shape, head.stored) != (table.shape, table.stored):
        return False
    return torch.equal(head.read(), table.read())


def check(network: Network, index: TensorIndex) -> None:
    """Compare an index with a network. The network may be on the meta device.

    Raises:
        CheckpointError: tensors are missing, unexpected, or have the wrong shape or a type that we cannot load.
    """
    want = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if network.config.tied_embeddings:
        want.pop(HEAD, None)
    problems = [
        f"missing: {released_name(name)} {list(shape)}" for name, shape in want.items() if name not in index.entries
    ]
    extra = [e.name for name, e in index.entries.items() if name not in want and name != HEAD]
    problems += [f"unexpected: {name}" for name in [*index.unexpected, *extra]]
    for name, entry in index.entries.items():
        if name in want and entry.shape != want[name]:
            problems.append(f"wrong shape: {entry.name} {list(entry.shape)}, expected {list(want[name])}")
    for name, pair in index.low_rank.items():
        shapes = {side: entry.shape for side, entry in pair.items()}
        out, width = want.get(name, (0, 0))
        if set(shapes) != {"A", "B"} or shapes["B"] != (out, shapes["A"][0]) or shapes["A"][1] != width:
            problems.append(f"wrong adapter for {released_name(name)} [{out}, {width}]: {shapes}")
    for entry in [*index.entries.values(), *(entry for pair in index.low_rank.values() for entry in pair.values())]:
        if entry.stored not in STORED:
            problems.append(f"stored as {entry.stored}: {entry.name}, expected one of {', '.join(STORED)}")
    if problems:
        rest = f"\n  and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
        raise CheckpointError("the tensors do not fit the network:\n  " + "\n  ".join(problems[:LISTED]) + rest)
