"""Weight files of a folder: choose the files that make up the checkpoint, as transformers does, and read headers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

SINGLE = ("model.safetensors", "adapter_model.safetensors")
INDEX_FILE = "model.safetensors.index.json"
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")
# Stored types that we can load, in safetensors' spelling.
STORED = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}


class CheckpointError(ValueError):
    """The files of a checkpoint do not make up the network. The message lists what is wrong."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file.

    Attributes:
        file: path of the file.
        name: name of the tensor in the file.
        shape: shape of the tensor.
        stored: type in safetensors' spelling, such as "BF16".
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    stored: str

    def read(self) -> Tensor:
        """Read the tensor."""
        with safe_open(self.file, "pt") as source:
            return source.get_tensor(self.name)


def weight_files(folder: Path) -> list[Path]:
    """Return the .safetensors files that make up the checkpoint in a folder. Pickled files are never read.

    The rules are those of transformers. If `model.safetensors` exists, it is the whole checkpoint. Otherwise the files
    named in the index are. Without both, all .safetensors files count; they must be exactly one complete split.

    Raises:
        FileNotFoundError: there is no file, or a file named in the index is missing.
        CheckpointError: the index is malformed, there are files of two splits, or a split is incomplete.
    """
    for name in SINGLE:
        if (folder / name).is_symlink() or (folder / name).is_file():
            return _present([folder / name])
    index = folder / INDEX_FILE
    if index.is_file():
        return _present([folder / name for name in _indexed(index)])
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        hint = " (pickled weights, .bin or .pt, are not loaded)" if list(folder.glob("*.bin")) else ""
        raise FileNotFoundError(f"checkpoint: {folder} has no .safetensors file{hint}")
    _one_split(folder, files)
    return _present(files)


def _indexed(index: Path) -> list[str]:
    refuse_pointer(index)
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{index}: expected a JSON object with a weight_map") from None
    strange = [name for name in names if not isinstance(name, str) or Path(name).name != name]
    if strange or not names:
        raise CheckpointError(f"{index}: weight_map names {strange[0]!r}" if strange else f"{index}: names no file")
    return names


def _one_split(folder: Path, files: list[Path]) -> None:
    """Raise an error if the files belong to several splits, or if a part of the split is missing."""
    parts = [match for file in files if (match := PART.fullmatch(file.name))]
    splits = {(match["stem"], match["count"]) for match in parts}
    if len(splits) > 1 or (splits and len(parts) < len(files)):
        names = ", ".join(file.name for file in files)
        raise CheckpointError(f"{folder}: files of different splits, and no {INDEX_FILE} says which count: {names}")
    for stem, count in splits:
        here = {int(match["number"]) for match in parts}
        gone = [n for n in range(1, int(count) + 1) if n not in here]
        if gone:
            raise FileNotFoundError(f"checkpoint: {folder / f'{stem}-{gone[0]:05d}-of-{count}.safetensors'} is missing")


def _present(files: list[Path]) -> list[Path]:
    for file in files:
        if not file.is_file():
            why = "is a link to a file that is missing" if file.is_symlink() else "is missing"
            raise FileNotFoundError(f"checkpoint: {file} {why}; the download or copy is incomplete")
        refuse_pointer(file)
    return files


def refuse_pointer(file: Path) -> None:
    """Raise `CheckpointError` if a file is only a Git LFS pointer."""
    with file.open("rb") as source:
        if source.read(len(LFS_POINTER)) == LFS_POINTER:
            raise CheckpointError(
                f"{file}: this is a Git LFS pointer, not the file itself; run `git lfs pull` in {file.parent}"
            )


def headers(file: Path) -> Iterator[StoredTensor]:
    """Read names, shapes and types of a file's tensors from its header.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        with safe_open(file, "pt") as source:
            for name in source.keys():  # noqa: SIM118 - not a dict
                tensor = source.get_slice(name)
                yield StoredTensor(file, name, tuple(tensor.get_shape()), str(tensor.get_dtype()))
    except SafetensorError as error:
        raise CheckpointError(f"{file}: damaged or cut off: {error}") from None


def stored_dtype(folder: Path) -> str:
    """Return the dtype of a checkpoint: that of its first floating-point tensor, as in transformers.

    Raises:
        CheckpointError: no tensor has a type that we can load.
    """
    for file in weight_files(folder):
        for tensor in headers(file):
            if tensor.stored in STORED:
                name = STORED[tensor.stored]
                return "float32" if getattr(torch, name) == torch.float64 else name
    raise CheckpointError(f"{folder}: no tensor of type {', '.join(STORED)}")
