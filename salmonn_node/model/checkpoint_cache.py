"""Find a checkpoint on this machine: the bundled one, a folder, or one downloaded with `salmonn checkpoint get`.

Nothing in this module uses the network.
"""

from __future__ import annotations

import re
from pathlib import Path

from salmonn_node.model.known_checkpoints import KNOWN

TINY = "tiny"
BUNDLED = Path(__file__).resolve().parent.parent / "checkpoints"
# Files of a checkpoint: safetensors weights (a format that cannot run code), configuration, tokenizer, licence, card.
PATTERNS = ("*.safetensors", "*.json", "*.jinja", "merges.txt", "README.md", "LICENSE*")
HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")


def find(checkpoint: str) -> Path:
    """Return the folder of a checkpoint.

    Args:
        checkpoint: "tiny", a folder, a short name of `known_checkpoints`, or a hub id. The last two may end in `@` and
            a revision. An existing folder takes precedence over a hub id.

    Raises:
        FileNotFoundError: the checkpoint is not on this machine. The message names the command that downloads it.
        ValueError: the text is none of the four.
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
    """Return hub id and revision (default "main") of a short name or a hub id.

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
    """Whether a text can only be a path."""
    return checkpoint.startswith(("/", "./", "../", "~")) or checkpoint in ("", ".", "..")


def origin(folder: Path) -> tuple[str, str]:
    """Return hub id and commit of a folder in the hub's cache. For any other folder, return its name and "".

    The cache names a folder `models--OWNER--NAME/snapshots/COMMIT`.
    """
    place = folder.absolute()
    repository = place.parent.parent.name
    if place.parent.name != "snapshots" or not repository.startswith("models--"):
        return place.name, ""
    return repository.removeprefix("models--").replace("--", "/", 1), place.name
