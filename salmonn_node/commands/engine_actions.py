"""What each action of `salmonn engines` does; it needs torch, which `--help` does not."""

from __future__ import annotations

import argparse
import time

from salmonn_node.engines import machine, manifest, networks, parity, reasons
from salmonn_node.engines.build import build_engine, plan_parity
from salmonn_node.engines.cache import CacheEntry, EngineCache, check, unusable
from salmonn_node.engines.export import export_onnx, graph_sha256, opset_for
from salmonn_node.engines.flavours import FLAVOURS, Flavour
from salmonn_node.engines.manifest import PlanManifest
from salmonn_node.engines.reasons import EngineError, Reason
from salmonn_node.engines.request import Request
from salmonn_node.engines.timing import bench_request
from salmonn_node.engines.wrappers import spec_of, weights_sha256
from salmonn_node.model.profiles import profile


def _flavour(args: argparse.Namespace) -> Flavour:
    if args.flavour:
        return args.flavour
    for flavour in FLAVOURS:
        if machine.can_run(flavour) is None:
            return flavour
    for flavour in FLAVOURS:
        if machine.version(flavour):
            return flavour
    raise EngineError(Reason(reasons.NO_TRT, "neither tensorrt nor tensorrt_rtx is installed (`salmonn doctor`)"))


def _pair(text: str, name: str) -> tuple[int, int]:
    try:
        first, second = (int(n) for n in text.lower().split("x"))
    except ValueError:
        raise ValueError(f"{name}: {text!r} is not two numbers with an x between") from None
    return first, second


def _requests(args: argparse.Namespace) -> list[Request]:
    if args.profile:
        towers = networks.random_towers(profile(args.profile), args.seed)
    else:
        towers = networks.checkpoint_towers(args.checkpoint)
    config = towers.config
    grid = _pair(args.grid, "grid") if args.grid else networks.camera_grid(config, *_pair(args.camera, "camera"))
    merge = int(config.vision["spatial_merge_size"])
    if min(grid) < 1 or grid[0] % merge or grid[1] % merge:
        raise ValueError(f"grid: {grid} must be positive multiples of the spatial merge size {merge}")
    common = {"model": towers.name, "dtype": args.dtype, "flavour": _flavour(args)}
    found = []
    if args.encoder != "audio":
        real = networks.frame_samples(getattr(args, "frame", []), config, grid)
        found.append(Request(towers.vision, grid=grid, real=real, **common))
    if args.encoder != "vision" and towers.audio is not None and config.audio is not None:
        real = networks.clip_samples(getattr(args, "clip", []), config.audio)
        found.append(Request(towers.audio, grid=None, real=real, **common))
    if not found:
        raise ValueError(f"encoder: {towers.name} has no audio encoder")
    print(f"{towers.name}: {'trained' if towers.trained else 'random, untrained'} weights, grid {grid[0]}x{grid[1]}")
    for request in found:
        request.seeds = getattr(args, "seeds", parity.SEEDS)
        for name in ("front_end", "workspace_mib", "force"):
            if hasattr(args, name):
                setattr(request, name, getattr(args, name))
    return found


def export(args: argparse.Namespace) -> int:
    """Write the ONNX file of each encoder."""
    for request in _requests(args):
        static = request.static(request.dtype)
        spec = spec_of(static, request.model, request.flavour)
        folder = args.out / f"{spec.label}-{spec.dtype}"
        folder.mkdir(parents=True, exist_ok=True)
        opset = opset_for(request.flavour, machine.version(request.flavour) or "0.0")
        started = time.monotonic()
        path = export_onnx(static, spec, folder, opset)
        print(f"{path}: opset {opset}, sha256 {graph_sha256(path)[:12]}, {time.monotonic() - started:.1f} s")
    return 0


def build(args: argparse.Namespace) -> int:
    """Build plans, check them, and put them into the cache."""
    cache = EngineCache(args.root)
    for request in _requests(args):
        built = build_engine(request, cache, lambda line: print(f"  {line}", flush=True))
        found = built.entry.manifest
        assert isinstance(found, PlanManifest)
        print(f"{'kept' if built.reused else 'built'} {built.entry.folder}")
        if not built.reused:
            times = ", ".join(f"{name} {value:.1f} s" for name, value in built.seconds.items())
            peaks = ", ".join(f"{name} {value:.0f} MiB" for name, value in built.peak_rss_mib.items())
            print(f"  {found.plan_bytes / 2**20:.1f} MiB; {times}; peak memory: {peaks}")
        _print_parity(parity.read_parity(built.entry.folder))
    return 0


def _print_parity(record: parity.Parity) -> None:
    for name, measures in (("graph (ONNX Runtime)", record.graph), ("plan", record.plan)):
        if measures:
            error, cosine = max(m.error for m in measures), min(m.cosine for m in measures)
            verdict = parity.worst(measures)
            cases = len({m.case for m in measures})
            figures = f"largest error {error:.1e}, smallest cosine {cosine:.6f}, {cases} inputs"
            print(f"  {name}: {figures}: {verdict or 'passed'}")
    if record.not_run:
        print(f"  plan: not run ({record.not_run})")


def verify(args: argparse.Namespace) -> int:
    """Check plans against a network and this machine; 1 when one does not fit."""
    cache, failed = EngineCache(args.root), 0
    for request in _requests(args):
        static = request.static(request.dtype)
        spec = spec_of(static, request.model, request.flavour)
        found = cache.find(spec, weights_sha256(static.tower, spec.dtype), None)
        if isinstance(found, Reason):
            print(f"{spec.label}: {found}")
            failed += 1
            continue
        assert isinstance(found.manifest, PlanManifest)
        device = machine.gpu()
        foreign = manifest.foreign(found.manifest, device) if device else None
        if foreign is not None:
            print(f"{spec.label}: {foreign}")
            failed += 1
            continue
        record = parity.read_parity(found.folder)
        record = plan_parity(request, static, spec, found.plan, found.manifest.plan_sha256, record)
        record.write(found.folder)
        print(f"{found.folder.name}: manifest and plan file agree with the network")
        _print_parity(record)
        refused = record.refusal(found.manifest.plan_sha256, device) if device else None
        failed += refused is not None
    return 1 if failed else 0


def bench(args: argparse.Namespace) -> int:
    """Time the encoders on every backend of this machine."""
    for request in _requests(args):
        for line in bench_request(request, EngineCache(args.root), args.repeats):
            print(line)
    return 0


def show_list(args: argparse.Namespace) -> int:
    """List plans and whether this machine can use them."""
    cache = EngineCache(args.root)
    entries = cache.entries()
    for entry in entries:
        print(f"{entry.folder.relative_to(cache.root)}: {_state(entry)}")
    if not entries:
        print(f"no plans under {cache.root}")
    return 0


def _state(entry: CacheEntry) -> str:
    refused, device = unusable(entry), machine.gpu()
    if refused is not None:
        return str(refused)
    assert isinstance(entry.manifest, PlanManifest)
    blocked = machine.can_run(entry.manifest.fields.flavour)  # type: ignore[arg-type]
    if blocked is not None or device is None:
        return f"whole; cannot run here ({blocked})"
    return str(check(entry, {}, device) or "usable here")


def prune(args: argparse.Namespace) -> int:
    """Remove unfinished builds and plans that this machine cannot use."""
    cache = EngineCache(args.root)
    gone = cache.prune(dry_run=args.dry_run)
    for folder, why in gone:
        print(f"{'would remove' if args.dry_run else 'removed'} {folder.relative_to(cache.root)}: {why}")
    if not gone:
        print("nothing to remove")
    return 0
