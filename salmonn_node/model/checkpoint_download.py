"""Download a checkpoint into the hub's cache: weights, tokenizer and JSON only. Interrupted downloads resume.

The hub's own library does the work and owns the cache. Large weight files are an exception, because the library starts
them again after a process died. This module downloads them to the same place, resumes where they stopped, and compares
their SHA-256 with the hub's.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from salmonn_node.model.checkpoint_cache import PATTERNS, find, hub_name

# Files of at least this size are resumed. Smaller ones are quick to download again.
LARGE_BYTES = 16 << 20
READ_BYTES = 1 << 22


class DownloadError(RuntimeError):
    """A checkpoint could not be downloaded. The message says why and what to do."""


@dataclass(frozen=True)
class Remote:
    """What the hub says about a checkpoint.

    Attributes:
        hub_id: owner and name.
        revision: the requested branch or tag.
        commit: the commit of that revision.
        licence: the licence from the model card, or "not stated".
        files: the files to download.
    """

    hub_id: str
    revision: str
    commit: str
    licence: str
    files: tuple[Any, ...]

    @property
    def size(self) -> int:
        """Total size of the files in bytes."""
        return sum(file.size for file in self.files)


def download(checkpoint: str, say: Callable[[str], None] = print) -> Path:
    """Download the missing files of a checkpoint, and return its folder.

    Args:
        checkpoint: a short name or a hub id, optionally with `@` and a revision.
        say: called with lines for the user. The hub library shows progress bars on stderr.

    Raises:
        ValueError: the text is neither a short name nor a hub id.
        DownloadError: the hub does not have it, cannot be reached, the disk is full, or a file arrived damaged.
    """
    from huggingface_hub import snapshot_download

    hub_id, revision = hub_name(checkpoint)
    try:
        remote = look_up(hub_id, revision)
    except _Unreachable as error:
        return _offline(checkpoint, str(error), say)
    cache = cache_folder()
    place = cache / f"models--{hub_id.replace('/', '--')}"
    missing = _missing(remote, place)
    say(f"{hub_id}, commit {remote.commit}, licence {remote.licence}")
    state = "all here already" if not missing else f"{shown(missing)} to come" if missing < remote.size else "to come"
    say(f"{shown(remote.size)} in {len(remote.files)} files, {state}; they lie in {cache}")
    try:
        _check_space(cache, missing)
        for file in remote.files:
            if file.lfs is not None and file.size >= LARGE_BYTES:
                _fetch(remote, file, place / "blobs")
        folder = snapshot_download(hub_id, revision=revision, allow_patterns=list(PATTERNS))
    except OSError as error:
        raise DownloadError(_reason(error, cache, checkpoint)) from None
    return Path(folder)


def look_up(hub_id: str, revision: str) -> Remote:
    """Ask the hub for a checkpoint's commit, licence and files.

    Raises:
        DownloadError: the hub does not have the checkpoint, refuses access, or has no safetensors weights for it.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    api, where = HfApi(), constants.ENDPOINT
    try:
        info = api.model_info(hub_id, revision=revision)
        tree = list(api.list_repo_tree(hub_id, recursive=True, revision=info.sha))
    except GatedRepoError:
        raise DownloadError(
            f"{hub_id} is given out after its licence was accepted: accept it at {where}/{hub_id}, "
            "then set HF_TOKEN to a token of yours"
        ) from None
    except RepositoryNotFoundError:
        raise DownloadError(
            f"{where} has no public checkpoint {hub_id}. Check the spelling; for a private one set HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise DownloadError(f"{hub_id} has no revision {revision!r}") from None
    except OfflineModeIsEnabled:
        raise _Unreachable("HF_HUB_OFFLINE is set, so the hub is not asked") from None
    except HfHubHTTPError as error:
        if error.response.status_code >= 500:
            raise _Unreachable(f"{where} does not work at the moment ({error.response.status_code})") from None
        raise DownloadError(f"{where} refused {hub_id}: {error}") from None
    except (OSError, _transport_error()) as error:
        raise _Unreachable(f"{where} cannot be reached ({error})") from None
    files = tuple(f for f in tree if hasattr(f, "size") and any(fnmatch(f.path, p) for p in PATTERNS))
    if not any(f.path.endswith(".safetensors") for f in files):
        names = ", ".join(sorted(f.path for f in tree if hasattr(f, "size"))[:8]) or "nothing"
        raise DownloadError(
            f"{hub_id} holds no .safetensors file, and weights in other formats are not loaded; it holds {names}"
        )
    return Remote(hub_id, revision, str(info.sha), _licence(info), files)


def cache_folder() -> Path:
    """Folder where the hub's library keeps downloads. HF_HOME and HF_HUB_CACHE change it."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser()


class _Unreachable(DownloadError):
    """The hub is unreachable. The files in the cache may be enough."""


def _offline(checkpoint: str, reason: str, say: Callable[[str], None]) -> Path:
    try:
        folder = find(checkpoint)
    except FileNotFoundError as error:
        state = "only partly in the cache" if "partly" in str(error) else "not in the cache"
        raise DownloadError(f"{reason}, and {checkpoint} is {state}. Try again with a connection") from None
    say(f"{reason}; {checkpoint} is in the cache already, commit {folder.name}")
    return folder


def _transport_error() -> type[Exception]:
    """The base class of connection errors in the hub library's HTTP client."""
    from huggingface_hub.errors import HfHubHTTPError

    return next(c for c in HfHubHTTPError.__mro__ if c.__name__ == "HTTPError")


def _licence(info: Any) -> str:
    """The licence that a model card states."""
    card = getattr(info, "card_data", None)
    stated = getattr(card, "license", None) or next(
        (tag.removeprefix("license:") for tag in info.tags or () if tag.startswith("license:")), None
    )
    return str(stated or "not stated")


def _blob_name(file: Any) -> str:
    """The name of a file's content in the cache."""
    return str(file.lfs.sha256 if file.lfs is not None else file.blob_id)


def _partial(blobs: Path, name: str) -> Path:
    return blobs / f"{name}.resumable"


def _missing(remote: Remote, place: Path) -> int:
    """Number of bytes still to download."""
    missing = 0
    for file in remote.files:
        name = _blob_name(file)
        if not (place / "blobs" / name).exists():
            partial = _partial(place / "blobs", name)
            missing += file.size - (min(file.size, partial.stat().st_size) if partial.exists() else 0)
    return missing


def _check_space(cache: Path, missing: int) -> None:
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if missing > free:
        raise DownloadError(
            f"{shown(missing)} are still to come, but {cache} has {shown(free)} free. "
            "Free some, or set HF_HOME to a folder on another disk"
        )


def _fetch(remote: Remote, file: Any, blobs: Path) -> None:
    """Download one large file and resume where an earlier process stopped. Rename it when its SHA-256 is right.

    Raises:
        DownloadError: the connection broke, or the SHA-256 is wrong. In the second case the file is deleted.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    target = blobs / _blob_name(file)
    if target.exists():
        return
    blobs.mkdir(parents=True, exist_ok=True)
    partial = _partial(blobs, target.name)
    with partial.open("ab") as out:
        have = out.tell()
        if have < file.size:
            url = hf_hub_url(remote.hub_id, file.path, revision=remote.commit)
            try:
                http_get(
                    url,
                    out,
                    resume_size=have,
                    headers=build_hf_headers(),
                    expected_size=file.size,
                    displayed_filename=file.path,
                )
            except _transport_error() as error:
                raise DownloadError(
                    f"the connection broke at {shown(out.tell())} of the {shown(file.size)} of {file.path} "
                    f"({type(error).__name__}). The same command goes on from there"
                ) from None
    if _sha256(partial) != target.name:
        partial.unlink()
        raise DownloadError(f"{file.path} arrived damaged and was deleted (wrong SHA-256). Run the command again")
    partial.replace(target)


def shown(size: int) -> str:
    """Format a number of bytes in decimal units, as the hub does."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while piece := source.read(READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _reason(error: OSError, cache: Path, checkpoint: str) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"{cache} is full. Free some space, or set HF_HOME to a folder on another disk; "
            f"then run salmonn checkpoint get {checkpoint} again: what has come is kept"
        )
    return f"{checkpoint} could not be downloaded: {error}"


def next_commands(checkpoint: str) -> Sequence[str]:
    """What to type after a download."""
    return (
        "salmonn plan",
        f'salmonn ask --bag YOUR_BAG --checkpoint {checkpoint} "where did you last see the red backpack?"',
    )
