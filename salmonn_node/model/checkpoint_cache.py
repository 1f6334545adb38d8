"""Find a checkpoint on this machine: the bundled one, a folder, or what `salmonn checkpoint get` brought.

Nothing here uses the network.
"""

from __future__ import annotations

import re
from pathlib import Path

from salmonn_node.model.known_checkpoints import KNOWN

TINY = "tiny"
BUNDLED = Path(__file__).resolve().parent.parent / "checkpoints"
# What a checkpoint needs: weights in the one format that cannot run code, configuration, tokenizer, licence and card.
PATTERNS = ("*.safetensors", "*.json", "*.jinja", "merges.txt", "README.md", "LICENSE*")
HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")


def find(checkpoint: str) -> Path:
    """The folder of a checkpoint.

    Args:
        checkpoint: "tiny", a folder, a short name of `known_checkpoints`, or a hub id; `@` and a revision may follow
            the last two. A folder comes before a name of the hub.

    Raises:
        FileNotFoundError: it is not on this machine; the message names the command that gets it.
        ValueError: it is none of the four.
    """
    if checkpoint == TINY:
        return BUNDLED / TINY
    folder = Path(checkpoint).expanduser()
    if folder.is_dir():
        return folder
    if looks_like_path(checkpoint):
        raise FileNotFoundError(f"checkpoint: {checkpoint} is not a folder")
    hub_id, revision = hub_name(checkpoint)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = snapshot_download(hub_id, revision=revision, allow_patterns=list(PATTERNS), local_files_only=True)
    except LocalEntryNotFoundError as error:
        what = "only partly here" if "incomplete" in str(error) else "not on this machine"
        raise FileNotFoundError(
            f"checkpoint: {checkpoint} is {what}. Get it with: salmonn checkpoint get {checkpoint}"
        ) from None
    return Path(found)


def hub_name(checkpoint: str) -> tuple[str, str]:
    """Hub id and revision ("main" when none is given) of a short name or a hub id.

    Raises:
        ValueError: neither.
    """
    name, _, revision = checkpoint.partition("@")
    hub_id = KNOWN[name].hub_id if name in KNOWN else name
    if not HUB_ID.fullmatch(hub_id) or (revision and not REVISION.fullmatch(revision)):
        raise ValueError(
            f"checkpoint: {checkpoint!r} is neither a folder nor a name. Names are {TINY}, {', '.join(KNOWN)}, "
            "and hub ids such as Qwen/Qwen3-VL-2B-Instruct"
        )
    return hub_id, revision or "main"


def looks_like_path(checkpoint: str) -> bool:
    """Whether a text can only be meant as a path."""
    return checkpoint.startswith(("/", "./", "../", "~")) or checkpoint in ("", ".", "..")


def origin(folder: Path) -> tuple[str, str]:
    """Hub id and commit of a folder in the hub's cache; its own name and "" for any other folder.

    The cache names a folder `models--OWNER--NAME/snapshots/COMMIT`.
    """
    place = folder.absolute()
    repository = place.parent.parent.name
    if place.parent.name != "snapshots" or not repository.startswith("models--"):
        return place.name, ""
    return repository.removeprefix("models--").replace("--", "/", 1), place.name
