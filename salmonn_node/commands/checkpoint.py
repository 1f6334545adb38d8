"""`salmonn checkpoint inspect|convert|verify`: what a folder of weights holds, and whether it is sound."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import torch
from safetensors import safe_open

from salmonn_node.model.checkpoint import BUNDLED, TINY, check, digest, files_of, headers, index_of, load, save
from salmonn_node.model.checkpoint_config import Folder, read_folder
from salmonn_node.model.network import Network
from salmonn_node.model.tokenizer import FileTokenizer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn checkpoint`."""
    actions = parser.add_subparsers(dest="action", required=True)
    for name, text in (
        ("inspect", "say what a folder holds, from its headers"),
        ("verify", "check names, shapes, tokenizer, and that every value is finite"),
    ):
        actions.add_parser(name, help=text).add_argument("folder", type=Path, help="or tiny, the one that comes along")
    convert = actions.add_parser("convert", help="merge the adapter and write our own single folder")
    convert.add_argument("folder", type=Path)
    convert.add_argument("target", type=Path)


def run(args: argparse.Namespace) -> int:
    """0 when the folder is sound, 1 when it is not."""
    try:
        own = str(args.folder) == TINY and not args.folder.exists()
        folder = read_folder(BUNDLED / TINY if own else args.folder)
        if args.action == "inspect":
            return _inspect(folder)
        if args.action == "verify":
            return _verify(folder)
        return _convert(folder, args.target)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1


def _files(folder: Folder) -> list[Path]:
    return [*files_of(folder.weights), *(files_of(folder.adapter) if folder.adapter else [])]


def _inspect(folder: Folder) -> int:
    config = folder.config
    print(f"kind        {folder.kind}")
    print(f"name        {folder.name}{' (trained)' if folder.trained else ' (untrained: answers mean nothing)'}")
    print(f"id          {digest(folder)}")
    print(f"text        {config.text['num_hidden_layers']} layers, width {config.hidden_size}, dtype {config.dtype}")
    print(f"vision      {config.vision['depth']} layers, width {config.vision['hidden_size']}")
    print(f"audio       {f'{config.audio.layers} layers, width {config.audio.d_model}' if config.audio else 'none'}")
    print(f"TTT         {dict(config.ttt) if config.ttt else 'none'}")
    counts: Counter[str] = Counter()
    for file in _files(folder):
        for entry in headers(file):
            size = 1
            for side in entry.shape:
                size *= side
            counts[".".join(entry.name.removeprefix("base_model.model.").split(".")[:2])] += size
    for part, count in sorted(counts.items()):
        print(f"  {part:28s} {count:>14,d} parameters")
    size = sum(file.stat().st_size for file in _files(folder))
    print(f"  {'in all':28s} {sum(counts.values()):>14,d} parameters, {size / 1e6:,.1f} MB")
    for text in folder.missing:
        print(f"missing     {text}")
    return _fits(folder)


def _fits(folder: Folder) -> int:
    with torch.device("meta"):
        network = Network(folder.config)
    check(network, index_of(folder))
    print("all tensors are there, with the right shapes")
    return 0


def _verify(folder: Folder) -> int:
    FileTokenizer.from_folder(folder.weights)
    _fits(folder)
    bad = []
    for file in _files(folder):
        with safe_open(file, "pt") as source:
            bad += [name for name in source.keys() if not bool(torch.isfinite(source.get_tensor(name)).all())]  # noqa: SIM118
    if bad:
        print("not finite:\n  " + "\n  ".join(bad), file=sys.stderr)
        return 1
    print("every value is finite; the tokenizer has the special tokens")
    return 0


def _convert(folder: Folder, target: Path) -> int:
    if target.exists() and any(target.iterdir()):
        print(f"{target} exists and is not empty", file=sys.stderr)
        return 1
    model = load(str(folder.path))
    card = f"# {folder.name}\n\nConverted from a folder of kind `{folder.kind}` (id {model.checkpoint.id}).\n"
    save(model, target, card, {"name": folder.name, "trained": folder.trained})
    print(f"wrote {target}")
    return 0
