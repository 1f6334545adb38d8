"""Manifest of a plan: all fields that decide whether the plan fits this machine and network, and their key."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salmonn_node.engines import machine
from salmonn_node.engines.reasons import Reason, stale
from salmonn_node.engines.spec import WRAPPER_REVISION, EngineSpec

SCHEMA = 1
FILE = "manifest.json"
PLAN = "engine.plan"


@dataclass(frozen=True)
class Fields:
    """What a plan was built from and for. The key is the sha256 of exactly these fields."""

    schema: int
    model: str
    encoder: str
    grid: list[int]
    batch: int
    dtype: str
    inputs: list
    outputs: list
    weights_sha256: str
    wrapper_revision: int
    front_end: str
    graph_sha256: str
    opset: int
    flags: list[str]
    flavour: str
    trt_version: str
    compute_capability: str
    gpu_name: str

    @property
    def key(self) -> str:
        """sha256 of the canonical JSON of all fields, in hex."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def folder(self) -> str:
        """`<grid>-<dtype>-sm<cc>-trt<version>-<key12>`."""
        shape = "x".join(str(n) for n in self.grid)
        batch = f"-b{self.batch}" if self.batch != 1 else ""
        flavour = "trt" if self.flavour == "tensorrt" else "trt_rtx"
        capability = self.compute_capability.replace(".", "")
        return f"{self.encoder}{shape}{batch}-{self.dtype}-sm{capability}-{flavour}{self.trt_version}-{self.key[:12]}"


@dataclass(frozen=True)
class PlanManifest:
    """Fields of the key, size and sha256 of the plan file, and how it was made (`built`: free text for people)."""

    fields: Fields
    plan_sha256: str
    plan_bytes: int
    built: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Write `manifest.json` into a folder."""
        values = {
            "key": self.fields.key,
            "fields": dataclasses.asdict(self.fields),
            "plan_sha256": self.plan_sha256,
            "plan_bytes": self.plan_bytes,
            "built": self.built,
        }
        (folder / FILE).write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")


def read(folder: Path) -> PlanManifest | Reason:
    """Read the manifest of a folder. Return a Reason if it is missing, damaged, or does not match its own key."""
    try:
        values = json.loads((folder / FILE).read_text())
        fields = Fields(**values["fields"])
        manifest = PlanManifest(fields, str(values["plan_sha256"]), int(values["plan_bytes"]), dict(values["built"]))
        key = values["key"]
    except FileNotFoundError:
        return stale("manifest", "no file", FILE)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Reason("STALE", f"{FILE} cannot be read: {type(error).__name__}: {error}", "manifest")
    if fields.schema != SCHEMA:
        return stale("schema", fields.schema, SCHEMA)
    if key != fields.key:
        return stale("key", key, fields.key)
    return manifest


def expected(spec: EngineSpec, weights_sha256: str) -> dict[str, Any]:
    """Return the fields that are known without exporting the graph again. A plan must match them before it is used."""
    return {
        "schema": SCHEMA,
        "model": spec.model,
        "encoder": spec.encoder,
        "grid": list(spec.grid),
        "batch": spec.batch,
        "dtype": spec.dtype,
        "inputs": [t.as_list() for t in spec.inputs],
        "outputs": [t.as_list() for t in spec.outputs],
        "weights_sha256": weights_sha256,
        "wrapper_revision": WRAPPER_REVISION,
        "flavour": spec.flavour,
        "trt_version": machine.version(spec.flavour),
    }


def differs(manifest: PlanManifest, wanted: dict[str, Any]) -> Reason | None:
    """Return the first field in which a plan differs from `wanted`, most telling field first, or None."""
    for name, value in wanted.items():
        found = getattr(manifest.fields, name)
        if found != value:
            return stale(name, found, value)
    return None


def foreign(manifest: PlanManifest, device: machine.Gpu) -> Reason | None:
    """Return a Reason if a plan was built for another GPU than `device`. Portable TensorRT-RTX plans need 8.0+."""
    fields = manifest.fields
    if fields.compute_capability == machine.RTX_PORTABLE:
        if tuple(int(n) for n in device.compute_capability.split(".")) < (8, 0):
            return stale("compute_capability", fields.compute_capability, device.compute_capability)
        return None
    if fields.compute_capability != device.compute_capability:
        return stale("compute_capability", fields.compute_capability, device.compute_capability)
    if fields.gpu_name != device.name:
        return stale("gpu_name", fields.gpu_name, device.name)
    return None


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file in hex. Reads it in pieces."""
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def damaged(folder: Path, manifest: PlanManifest) -> Reason | None:
    """Return a Reason if the plan file is missing, truncated or altered."""
    path = folder / PLAN
    if not path.is_file():
        return stale("plan", "no file", PLAN)
    size = path.stat().st_size
    if size != manifest.plan_bytes:
        return stale("plan_bytes", size, manifest.plan_bytes)
    found = file_sha256(path)
    if found != manifest.plan_sha256:
        return stale("plan_sha256", found, manifest.plan_sha256)
    return None
