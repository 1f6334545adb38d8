"""Golden checker: compute vectors of the public release from their inputs, and report each file's largest error."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

# Modules that register families when imported. Add the module of a new family here.
FAMILY_MODULES = [
    "salmonn_node.lab.bench.golden_tokens",
    "salmonn_node.lab.bench.golden_ttt",
    "salmonn_node.lab.bench.golden_model",
]


@dataclass
class GoldenFile:
    """One file of vectors: tensors by key, scalars from its metadata, and its neighbours for shared parameters.

    Attributes:
        path: path of the file.
        tensors: all tensors of the file. Empty for JSON.
        metadata: metadata strings of the file. `{}` for JSON.
        data: parsed content of a JSON file.
    """

    path: Path
    tensors: dict[str, Tensor] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    data: Any = None

    @classmethod
    def load(cls, path: Path) -> GoldenFile:
        """Read a .safetensors or .json file.

        Raises:
            OSError: it cannot be read. ValueError or SafetensorError: it is malformed.
        """
        if path.suffix == ".json":
            return cls(path, data=json.loads(path.read_text()))
        with safe_open(path, "pt") as source:
            names = source.keys()
            return cls(path, {name: source.get_tensor(name) for name in names}, dict(source.metadata() or {}))

    def neighbour(self, name: str) -> GoldenFile:
        """Load another file of the same directory, for inputs that it holds."""
        return GoldenFile.load(self.path.parent / name)


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        key: key of the value in the file.
        error: largest absolute difference, or number of differing entries of an exact check. Infinite if shapes differ.
        tolerance: largest error that passes. 0 for exact checks.
    """

    key: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance. NaN is not."""
        return self.error <= self.tolerance


Checker = Callable[[GoldenFile], Iterator[Check]]


@dataclass(frozen=True)
class Family:
    """Checker `check` for files whose stem matches `pattern`. It yields one Check per value."""

    pattern: str
    check: Checker
    title: str


FAMILIES: list[Family] = []


def family(pattern: str, title: str) -> Callable[[Checker], Checker]:
    """Register a checker for files whose stem matches the glob `pattern`. The first matching family is used."""

    def register(check: Checker) -> Checker:
        FAMILIES.append(Family(pattern, check, title))
        return check

    return register


def close(key: str, got: Tensor, want: Tensor, tolerance: float) -> Check:
    """Compare values by the largest absolute difference. NaN equals NaN, and an infinity equals itself."""
    if tuple(got.shape) != tuple(want.shape):
        return Check(f"{key} (shape {tuple(got.shape)}, file has {tuple(want.shape)})", float("inf"), tolerance)
    got, want = got.detach().double().cpu(), want.double().cpu()
    both = (got == want) | (got.isnan() & want.isnan())
    difference = torch.where(both, 0.0, (got - want).abs())
    if difference.numel() == 0:
        return Check(key, 0.0, tolerance)
    return Check(key, float("inf") if bool(difference.isnan().any()) else float(difference.max()), tolerance)


def exact(key: str, got: Any, want: Any) -> Check:
    """Compare indices, ids or texts. The number of differing entries must be 0."""
    if isinstance(got, Tensor) and isinstance(want, Tensor):
        if tuple(got.shape) != tuple(want.shape):
            return Check(f"{key} (shape {tuple(got.shape)}, file has {tuple(want.shape)})", float("inf"), 0.0)
        return Check(key, float((got.cpu().double() != want.cpu().double()).sum()), 0.0)
    return Check(key, float(got != want), 0.0)


def load_families() -> None:
    """Import the modules that register families."""
    for module in FAMILY_MODULES:
        importlib.import_module(module)


@dataclass(frozen=True)
class FileResult:
    """Result of one file. `state` is passed, failed, error, helper (inputs for others) or unknown."""

    name: str
    state: str
    checks: tuple[Check, ...] = ()
    detail: str = ""

    @property
    def worst(self) -> Check | None:
        """The failed check with the largest error. If none failed, the check nearest to its tolerance."""
        if not self.checks:
            return None
        return max(
            self.checks, key=lambda c: (not c.passed, c.error / c.tolerance if c.tolerance else c.error, c.error)
        )


# Files that only hold inputs of other files.
HELPERS = ("e2e_weights_inputs*",)


def check_file(path: Path) -> FileResult:
    """Check one file with the family of its name. An exception in the checker becomes a result, not a crash."""
    if any(fnmatch(path.stem, pattern) for pattern in HELPERS):
        return FileResult(path.name, "helper", detail="inputs of other files")
    known = next((f for f in FAMILIES if fnmatch(path.stem, f.pattern)), None)
    if known is None:
        return FileResult(path.name, "unknown", detail="no family has this name")
    checks: list[Check] = []
    try:
        checks.extend(known.check(GoldenFile.load(path)))
    except Exception as error:  # a malformed file must not hide the results of other files
        return FileResult(path.name, "error", tuple(checks), f"{type(error).__name__}: {error}")
    if not checks:
        return FileResult(path.name, "error", detail="the family found nothing to check in it")
    return FileResult(path.name, "passed" if all(c.passed for c in checks) else "failed", tuple(checks))


def golden_files(directory: Path) -> list[Path]:
    """The .safetensors and .json files of a directory, sorted by name."""
    return sorted(p for p in directory.iterdir() if p.suffix in (".safetensors", ".json"))
