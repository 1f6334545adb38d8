"""Encoders of a network: run each on a plan if one may be used, else on torch, and report which."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from salmonn_node.engines import machine, reasons
from salmonn_node.engines.cache import EngineCache
from salmonn_node.engines.flavours import FLAVOURS
from salmonn_node.engines.manifest import PlanManifest
from salmonn_node.engines.reasons import EngineError, Reason
from salmonn_node.engines.runtime import EngineSettings, LoadedEncoder, load
from salmonn_node.engines.spec import DTYPES, dtype_name, folder_name
from salmonn_node.engines.wrappers import StaticAudio, StaticEncoder, StaticVision, cast_copy, spec_of, weights_sha256

if TYPE_CHECKING:
    from salmonn_node.model.config import AudioConfig
    from salmonn_node.model.towers import AudioTower, VisionTower

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncoderReport:
    """How one encoder runs: `label` (`vision18x34`), `backend`, and a code and a reason if it is not a plan."""

    label: str
    backend: str
    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.label}: {self.backend}" + (f" ({self.detail})" if self.detail else "")


class VisionEncoder:
    """Drop-in for `VisionTower`. Loaded grids run on their backend. Others run on the tower, counted in `elsewhere`."""

    def __init__(self, tower: VisionTower, loaded: dict[tuple[int, int], LoadedEncoder]):
        self.tower, self.loaded = tower, loaded
        self.elsewhere: Counter[tuple[int, int]] = Counter()

    @property
    def merge(self) -> int:
        """Patches per token along a side."""
        return self.tower.merge

    def __call__(self, pixels: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Encode pixels (B, rows * columns, C) of a grid to tokens (B, N, D) and deepstack rows (K, B, N, D).

        Raises:
            EngineError: RUNTIME_FAIL, see LoadedEncoder.
        """
        encoder = self.loaded.get((int(grid[0]), int(grid[1])))
        if encoder is None:
            self.elsewhere[(int(grid[0]), int(grid[1]))] += 1
            if self.loaded and self.elsewhere[(int(grid[0]), int(grid[1]))] == 1:
                log.warning("vision: grid %dx%d has no loaded encoder; it runs on torch", *grid)
            return self.tower(pixels, grid)
        pairs = [encoder(patch[None]) for patch in pixels]  # one patch per call, the shape that the plan was built for
        return torch.cat([p[0] for p in pairs]), torch.cat([p[1] for p in pairs], dim=1)


class AudioEncoder:
    """Drop-in for `AudioTower`, for whole windows."""

    def __init__(self, tower: AudioTower, loaded: LoadedEncoder):
        self.tower, self.loaded = tower, loaded

    @property
    def config(self) -> AudioConfig:
        """AudioConfig of the tower."""
        return self.tower.config

    def __call__(self, mel: Tensor) -> Tensor:
        """Encode log-mel (B, mel bins, frames) to tokens (B, window tokens, D); errors as in LoadedEncoder."""
        return torch.cat([self.loaded(window[None])[0] for window in mel])


@dataclass
class Encoders:
    """Both encoders of a network. `audio` is None without an audio tower."""

    vision: VisionEncoder
    audio: AudioEncoder | None
    report: list[EncoderReport]

    def close(self) -> None:
        """Free all plans. The towers stay usable."""
        for encoder in self._all():
            encoder.close()

    def _all(self) -> Sequence[LoadedEncoder]:
        return [*self.vision.loaded.values(), *([self.audio.loaded] if self.audio is not None else [])]

    def summary(self, encoder: str) -> EncoderReport:
        """Summarise "vision" or "audio" for a status: backends joined by `+` if grids differ, and the first reason."""
        lines = [r for r in self.report if r.label.startswith(encoder)]
        if not lines:
            return EncoderReport(encoder, "none", "", "the network has no such encoder")
        first = next((r for r in lines if r.reason), lines[0])
        label = "+".join(r.label for r in lines)
        return EncoderReport(label, "+".join(sorted({r.backend for r in lines})), first.reason, first.detail)


def built_grids(name: str, settings: EngineSettings) -> list[tuple[int, int]]:
    """Return the grids for which the cache has a vision plan of a network, usable or not."""
    found = {
        (e.manifest.fields.grid[0], e.manifest.fields.grid[1])
        for e in EngineCache(settings.root).entries(name)
        if isinstance(e.manifest, PlanManifest) and e.manifest.fields.encoder == "vision"
    }
    return sorted(found)


def load_encoders(
    vision: VisionTower, audio: AudioTower | None, name: str, settings: EngineSettings | None = None
) -> Encoders:
    """Load and warm up the encoders of a network, for the configure transition of a node. Builds nothing.

    Args:
        vision: `VisionTower` of the network, on its device.
        audio: `AudioTower` of the network, or None.
        name: name of the network, which is also the folder of its plans.
        settings: see EngineSettings. One encoder is loaded for each of `settings.grids`. If none is named and an engine
            may be used, one is loaded for each grid that has a plan in the cache.

    Raises:
        EngineError: an engine is required and cannot be used, or a warm-up failed.
    """
    settings, name = settings or EngineSettings(), folder_name(name)
    dtype = settings.dtype or dtype_name(next(p.dtype for p in vision.parameters() if p.is_floating_point()))
    loaded: dict[tuple[int, int], LoadedEncoder] = {}
    report: list[EncoderReport] = []

    def get(static: StaticEncoder, sha256: Callable[[], str]) -> LoadedEncoder:
        spec = spec_of(static, name)
        encoder = load(spec, static, sha256, settings)
        encoder(spec.inputs[0].empty(next(static.parameters()).device, fill=0.0))
        encoder.calls = 0
        note(spec.label, encoder.backend, encoder.reason)
        return encoder

    def note(label: str, backend: str, reason: Reason | None) -> None:
        line = EncoderReport(label, backend, reason.code if reason else "", str(reason or ""))
        report.append(line)
        log.info("encoder %s", line)  # the node and the commands tell the summary

    try:
        tower = vision if settings.dtype is None else cast_copy(vision, DTYPES[dtype])
        grids = settings.grids or (() if settings.backend == "torch" else built_grids(name, settings))
        sha256 = functools.cache(functools.partial(weights_sha256, tower, dtype))
        for grid in grids:
            loaded[grid] = get(StaticVision(tower, grid), sha256)
        if not loaded:
            reason = None if settings.backend == "torch" else no_plan(name, settings)
            if settings.require_engine:
                raise EngineError(reason or Reason(reasons.NO_ENGINE, "backend 'torch' is no engine"))
            note("vision", "torch", reason)
        hearing = None
        if audio is not None:
            ear = audio if settings.dtype is None else cast_copy(audio, DTYPES[dtype])
            hearing = AudioEncoder(audio, get(StaticAudio(ear), functools.partial(weights_sha256, ear, dtype)))
    except EngineError:
        for encoder in loaded.values():
            encoder.close()
        raise
    return Encoders(VisionEncoder(vision, loaded), hearing, report)


def no_plan(name: str, settings: EngineSettings) -> Reason:
    """Why no vision plan was looked for: this machine cannot run one, or none was built."""
    if settings.backend == "torch_graph":
        return Reason(reasons.NO_ENGINE, "backend 'torch_graph' needs the camera's grid")
    flavours = [flavour for flavour in FLAVOURS if settings.backend in ("auto", flavour)]
    refusals = [machine.can_run(flavour) for flavour in flavours]
    if refusals[-1] is not None and all(refusals):
        return refusals[-1]
    return Reason(reasons.NO_ENGINE, f"no vision plan of {name} under {EngineCache(settings.root).root}")
