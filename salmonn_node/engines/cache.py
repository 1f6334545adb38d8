"""Cache of plans: `engines/<model>/<grid>-<dtype>-sm<cc>-trt<version>-<key12>/`, written atomically.

An entry holds `engine.plan`, `manifest.json`, `parity.json` and `build.log`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salmonn_node.engines import machine, manifest, reasons
from salmonn_node.engines.manifest import PlanManifest
from salmonn_node.engines.parity import read_parity
from salmonn_node.engines.reasons import Reason
from salmonn_node.engines.spec import EngineSpec

TEMPORARY = ".building-"


@dataclass(frozen=True)
class CacheEntry:
    """A folder of the cache with its manifest, or the reason why the manifest cannot be read."""

    folder: Path
    manifest: PlanManifest | Reason

    @property
    def plan(self) -> Path:
        """The serialised engine."""
        return self.folder / manifest.PLAN


def default_root() -> Path:
    """Return `$SALMONN_ENGINES`, else `engines/` of the checkout, else `$XDG_CACHE_HOME/salmonn_node/engines`.

    Raises ValueError if the user has no home directory.
    """
    if named := os.environ.get("SALMONN_ENGINES"):
        return Path(named)
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "package.xml").is_file() or (checkout / "setup.py").is_file():
        return checkout / "engines"
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "salmonn_node" / "engines"
    try:
        return Path.home() / ".cache" / "salmonn_node" / "engines"
    except RuntimeError:
        raise ValueError(
            "this user has no home directory to look for engines in: set the node's parameter engine_directory, or the "
            "variable SALMONN_ENGINES or XDG_CACHE_HOME"
        ) from None


class EngineCache:
    """A folder of plans. One rename adds an entry, so readers need no lock. A lock per model serialises writers."""

    def __init__(self, root: Path | str | None = None):
        self.root = Path(root) if root is not None else default_root()

    def entries(self, model: str | None = None) -> list[CacheEntry]:
        """All entries, or those of one model, newest first."""
        folders = [p for p in self.root.glob(f"{model or '*'}/*") if p.is_dir() and not p.name.startswith(".")]
        folders.sort(key=lambda p: (-p.stat().st_mtime_ns, p.name))
        return [CacheEntry(folder, manifest.read(folder)) for folder in folders]

    def find(self, spec: EngineSpec, weights_sha256: str, device: machine.Gpu | None) -> CacheEntry | Reason:
        """Return the newest usable plan of a spec, or the reason why the newest existing one is refused.

        Everything is checked before TensorRT reads a byte of the plan: the fields, the GPU (if `device` is given), the
        size and sha256 of the plan file, and the record that its outputs equal torch's on this GPU.
        """
        wanted, first = manifest.expected(spec, weights_sha256), None
        for entry in self.entries(spec.model):
            if not entry.folder.name.startswith(f"{spec.label}-{spec.dtype}-"):
                continue
            found = entry.manifest
            if isinstance(found, PlanManifest) and found.fields.flavour != spec.flavour:
                continue  # a plan of another flavour is not a stale plan of this one
            refusal = check(entry, wanted, device)
            if refusal is None:
                return entry
            first = first or Reason(refusal.kind, f"{refusal.detail} ({entry.folder.name})", refusal.field)
        return first or Reason(
            reasons.NO_ENGINE, f"no {spec.flavour} plan for {spec.model} {spec.label} {spec.dtype} under {self.root}"
        )

    @contextlib.contextmanager
    def lock(self, model: str) -> Iterator[None]:
        """Hold the writer lock of a model. Waits until other builders finish."""
        folder = self.root / model
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def workspace(self, model: str) -> Iterator[Path]:
        """Context manager: a temporary folder beside the model's entries, removed unless it became an entry."""
        (self.root / model).mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=self.root / model))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def install(self, workspace: Path, built: PlanManifest) -> CacheEntry:
        """Turn a workspace into the entry of its key by one rename, replacing an older entry. Requires the lock."""
        built.write(workspace)
        for path in workspace.iterdir():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        folder = self.root / built.fields.model / built.fields.folder
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=folder.parent)) / "old"
            folder.rename(old)
            workspace.rename(folder)
            shutil.rmtree(old.parent, ignore_errors=True)
        else:
            workspace.rename(folder)
        return CacheEntry(folder, built)

    def prune(self, keep: set[Path] | None = None, dry_run: bool = False) -> list[tuple[Path, Reason]]:
        """Remove unfinished builds and entries that this machine cannot use. Return what was removed and why."""
        gone: list[tuple[Path, Reason]] = []
        for model in sorted(p.name for p in self.root.glob("*") if p.is_dir()):
            with self.lock(model):
                for folder in sorted((self.root / model).glob(f"{TEMPORARY}*")):
                    gone.append((folder, Reason(reasons.STALE, "a build that did not finish", "unfinished")))
                for entry in self.entries(model):
                    refusal = entry.manifest if isinstance(entry.manifest, Reason) else unusable(entry)
                    if refusal is not None and entry.folder not in (keep or set()):
                        gone.append((entry.folder, refusal))
                if not dry_run:
                    for folder, _ in gone:
                        shutil.rmtree(folder, ignore_errors=True)
        return gone


def unusable(entry: CacheEntry) -> Reason | None:
    """Why no model on this machine can use an entry (wrapper, TensorRT version, GPU or a damaged plan), or None."""
    found = entry.manifest
    if isinstance(found, Reason):
        return found
    fields = found.fields
    wanted: dict[str, Any] = {"wrapper_revision": manifest.WRAPPER_REVISION}
    here = machine.version(fields.flavour)  # type: ignore[arg-type]
    if here is not None:
        wanted["trt_version"] = here
    device = machine.gpu()
    return (
        manifest.differs(found, wanted)
        or (manifest.foreign(found, device) if device else None)
        or manifest.damaged(entry.folder, found)
    )


def check(entry: CacheEntry, wanted: dict[str, Any], device: machine.Gpu | None) -> Reason | None:
    """Why an entry is refused, or None. Checks fields, GPU, plan file, then parity: cheapest first."""
    found = entry.manifest
    if isinstance(found, Reason):
        return found
    refusal = manifest.differs(found, wanted)
    if refusal is None and device is not None:
        refusal = manifest.foreign(found, device)
    refusal = refusal or manifest.damaged(entry.folder, found)
    if refusal is None and device is not None:
        refusal = read_parity(entry.folder).refusal(found.plan_sha256, device)
    return refusal
