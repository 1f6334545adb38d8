"""`salmonn checkpoint get|inspect|verify|convert`: download weights by name, see what they hold, check them."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from salmonn_node.model.checkpoint_cache import TINY, find
from salmonn_node.model.known_checkpoints import KNOWN

if TYPE_CHECKING:
    from salmonn_node.model.checkpoint import Prepared
    from salmonn_node.model.checkpoint_config import Folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn checkpoint`."""
    actions = parser.add_subparsers(dest="action", required=True)
    get = actions.add_parser("get", help="download weights by name into the hub's cache; goes on where it was cut off")
    get.add_argument("checkpoint", help=f"{', '.join(KNOWN)}, or any hub id; @REVISION may follow")
    for name, text in (
        ("inspect", "say what a checkpoint holds, from its headers"),
        ("verify", "check names, shapes, tokenizer, and that every value is finite"),
    ):
        actions.add_parser(name, help=text).add_argument("checkpoint", help=f"a folder, {TINY}, or a name as for get")
    convert = actions.add_parser("convert", help="merge the adapter and write our own single folder")
    convert.add_argument("checkpoint", help="a folder, or a name as for get")
    convert.add_argument("target", type=Path, help="folder to write; must be empty or new")


def run(args: argparse.Namespace) -> int:
    """0 when the folder is sound, 1 when it is not."""
    try:
        if args.action == "get":
            return _get(args.checkpoint)
        path = find(args.checkpoint)
        from salmonn_node.model.checkpoint_config import read_folder

        folder = read_folder(path)
        if args.action == "inspect":
            return _inspect(folder)
        if args.action == "verify":
            return _verify(folder)
        return _convert(folder, args.target)
    except (OSError, ValueError, RuntimeError) as error:
        print(f"salmonn checkpoint {args.action}: {error}", file=sys.stderr)
        return 1


def _get(checkpoint: str) -> int:
    from salmonn_node.model.checkpoint_download import download, next_commands

    path = download(checkpoint)
    from salmonn_node.model.checkpoint_config import read_folder

    folder = read_folder(path)
    for text in folder.missing:
        print(f"note: {text}")
    _fits(folder)
    print(f"ready: {folder.path}")
    print("Next:\n  " + "\n  ".join(next_commands(checkpoint)))
    return 0


def _files(folder: Folder) -> list[Path]:
    from salmonn_node.model.checkpoint_files import weight_files

    return [*weight_files(folder.weights), *(weight_files(folder.adapter) if folder.adapter else [])]


def _inspect(folder: Folder) -> int:
    from salmonn_node.model.checkpoint import digest
    from salmonn_node.model.checkpoint_files import headers

    config = folder.config
    print(f"kind        {folder.kind}")
    print(f"name        {folder.name}{' (trained)' if folder.trained else ' (untrained: answers mean nothing)'}")
    print(f"id          {digest(folder)}")
    if folder.commit:
        print(f"commit      {folder.commit}")
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
    _fits(folder)
    return 0


def _fits(folder: Folder) -> Prepared:
    """Compare names, shapes and types with the network, and look for the special tokens, as loading does."""
    from salmonn_node.model.checkpoint import prepare

    ready = prepare(folder)
    print("all tensors are there, with the right shapes; the tokenizer has the special tokens")
    return ready


def _verify(folder: Folder) -> int:
    import torch

    index = _fits(folder).index
    pairs = [entry for pair in index.low_rank.values() for entry in pair.values()]
    bad = [e.name for e in [*index.entries.values(), *pairs] if not bool(torch.isfinite(e.read()).all())]
    if bad:
        print("not finite:\n  " + "\n  ".join(bad), file=sys.stderr)
        return 1
    print("every value is finite")
    return 0


def _convert(folder: Folder, target: Path) -> int:
    from salmonn_node.answering.confidence import read_calibration
    from salmonn_node.model.checkpoint import digest, load, save
    from salmonn_node.model.checkpoint_config import read_folder
    from salmonn_node.model.own_calibration import CALIBRATION

    if target.exists() and any(target.iterdir()):
        print(f"{target} exists and is not empty", file=sys.stderr)
        return 1
    model = load(str(folder.path))
    card = f"# {folder.name}\n\nConverted from a folder of kind `{folder.kind}` (id {model.checkpoint.id}).\n"
    save(model, target, card, {"name": folder.name, "trained": folder.trained, "family": folder.family})
    if model.checkpoint.calibration is not None:
        # Its figures hold for the same weights; only their name is another in the new folder.
        calibration = read_calibration(model.checkpoint.calibration, model.checkpoint.id)
        renamed = calibration.model_copy(update={"checkpoint": digest(read_folder(target))})
        (target / CALIBRATION).write_text(renamed.model_dump_json(indent=1, exclude_defaults=True) + "\n")
    print(f"wrote {target}")
    return 0
