"""Download a checkpoint into the hub's cache: weights, tokenizer and JSON only; a download that was cut off goes on.

The hub's own library does the work and owns the cache. Large weight files are an exception: the library begins them
anew after a process has died, so they are fetched here, into the same place, from where they had stopped, and their
SHA-256 is compared with the hub's.
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

# Files from this size on are resumed; smaller ones are quick to begin anew.
LARGE_BYTES = 16 << 20
READ_BYTES = 1 << 22


class DownloadError(RuntimeError):
    """A checkpoint could not be downloaded; the message says why and what to do."""


@dataclass(frozen=True)
class Remote:
    """What the hub says of a checkpoint.

    Attributes:
        hub_id: owner and name.
        revision: branch or tag that was asked for.
        commit: that it stands for.
        licence: as the model card states it, "not stated" where it does not.
        files: the files that are wanted.
    """

    hub_id: str
    revision: str
    commit: str
    licence: str
    files: tuple[Any, ...]

    @property
    def size(self) -> int:
        """Bytes of all wanted files."""
        return sum(file.size for file in self.files)


def download(checkpoint: str, say: Callable[[str], None] = print) -> Path:
    """Download what is missing of a checkpoint, and return its folder.

    Args:
        checkpoint: a short name or a hub id; `@` and a revision may follow.
        say: gets lines for the user. The progress bars are the hub library's, on stderr.

    Raises:
        ValueError: neither a short name nor a hub id.
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
        DownloadError: the hub does not have it, does not give it, or it has no weights in safetensors.
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
    """Where the hub's library keeps downloads; HF_HOME and HF_HUB_CACHE move it."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser()


class _Unreachable(DownloadError):
    """The hub cannot be asked; what is in the cache may still do."""


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
    """Bytes that still have to come."""
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
    """Bring one large file, from where an earlier process has stopped; it takes its name when its SHA-256 is right.

    Raises:
        DownloadError: the bytes are not those that the hub promised; they are deleted.
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
    """Bytes for a person, in decimal units, as the hub shows them."""
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
