"""`salmonn engines`: export, build, verify, bench, list and prune plans of the encoders."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from salmonn_node.engines import machine, manifest, parity, reasons
from salmonn_node.engines.cache import EngineCache, Entry, check, unusable
from salmonn_node.engines.manifest import Manifest
from salmonn_node.engines.reasons import EngineError, Reason
from salmonn_node.engines.spec import DTYPES, FLAVOURS
from salmonn_node.model.profiles import profile


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, text: str, network: bool = False) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.add_argument("--root", type=Path, help="folder of plans (default: $SALMONN_ENGINES, or engines/)")
        if network:
            source = sub.add_mutually_exclusive_group(required=True)
            source.add_argument("--profile", help="a network's sizes, with random weights")
            source.add_argument("--checkpoint", type=Path, help="a folder with a checkpoint")
            sub.add_argument("--seed", type=int, default=0, help="seed of random weights")
            sub.add_argument("--encoder", choices=("both", "vision", "audio"), default="both")
            sub.add_argument("--camera", default="640x360", metavar="WxH", help="camera size that fixes the grid")
            sub.add_argument("--grid", metavar="ROWSxCOLS", help="the grid itself, in 16x16 patches")
            sub.add_argument("--dtype", choices=tuple(DTYPES), default="bf16")
            sub.add_argument("--flavour", choices=FLAVOURS, default=None, help="default: the one that is installed")
        return sub

    export = action("export", "write the ONNX files of the encoders", network=True)
    export.add_argument("--out", type=Path, required=True)
    for name, text in (
        ("build", "build plans, check them, and put them into the cache"),
        ("verify", "check plans against a network and this machine; on a GPU, run them against torch"),
    ):
        sub = action(name, text, network=True)
        sub.add_argument("--frame", type=Path, action="append", default=[], help="image to try parity on (repeatable)")
        sub.add_argument("--clip", type=Path, action="append", default=[], help="16 kHz WAV to try parity on")
        sub.add_argument("--seeds", type=int, default=parity.SEEDS, help="noise inputs for parity; 0: no graph check")
        if name == "build":
            sub.add_argument("--front-end", choices=("onnx", "torch_tensorrt"), default="onnx")
            sub.add_argument("--workspace-mib", type=int, default=0, help="limit of the builder's GPU scratch memory")
            sub.add_argument("--force", action="store_true", help="build even if the plan is there")
    bench = action("bench", "time the encoders on every backend of this machine", network=True)
    bench.add_argument("--repeats", type=int, default=10)
    action("list", "list plans and whether this machine can use them")
    prune = action("prune", "remove unfinished builds and plans that this machine cannot use")
    prune.add_argument("--dry-run", action="store_true")


def run(args: argparse.Namespace) -> int:
    """Run one action; 0 when it did what was asked."""
    try:
        return {
            "export": _export,
            "build": _build,
            "verify": _verify,
            "bench": _bench,
            "list": _list,
            "prune": _prune,
        }[args.action](args)
    except (EngineError, ValueError, FileNotFoundError) as error:
        print(f"salmonn engines {args.action}: {error}", file=sys.stderr)
        return 1


def _flavour(args: argparse.Namespace) -> str:
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


def _requests(args: argparse.Namespace) -> list:
    from salmonn_node.engines import networks
    from salmonn_node.engines.build import Request

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
    if args.encoder != "vision" and towers.audio is not None:
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


def _export(args: argparse.Namespace) -> int:
    from salmonn_node.engines.export import export_onnx, graph_sha256, opset_for
    from salmonn_node.engines.wrappers import spec_of

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


def _build(args: argparse.Namespace) -> int:
    from salmonn_node.engines.build import build_engine

    cache = EngineCache(args.root)
    for request in _requests(args):
        built = build_engine(request, cache, lambda line: print(f"  {line}", flush=True))
        found = built.entry.manifest
        assert isinstance(found, Manifest)
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


def _verify(args: argparse.Namespace) -> int:
    from salmonn_node.engines.build import plan_parity
    from salmonn_node.engines.wrappers import spec_of, weights_sha256

    cache, failed = EngineCache(args.root), 0
    for request in _requests(args):
        static = request.static(request.dtype)
        spec = spec_of(static, request.model, request.flavour)
        found = cache.find(spec, weights_sha256(static.tower, spec.dtype), None)
        if isinstance(found, Reason):
            print(f"{spec.label}: {found}")
            failed += 1
            continue
        assert isinstance(found.manifest, Manifest)
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


def _bench(args: argparse.Namespace) -> int:
    from salmonn_node.engines.timing import bench_request

    for request in _requests(args):
        for line in bench_request(request, EngineCache(args.root), args.repeats):
            print(line)
    return 0


def _list(args: argparse.Namespace) -> int:
    cache = EngineCache(args.root)
    entries = cache.entries()
    for entry in entries:
        print(f"{entry.folder.relative_to(cache.root)}: {_state(entry)}")
    if not entries:
        print(f"no plans under {cache.root}")
    return 0


def _state(entry: Entry) -> str:
    refused, device = unusable(entry), machine.gpu()
    if refused is not None:
        return str(refused)
    assert isinstance(entry.manifest, Manifest)
    blocked = machine.can_run(entry.manifest.fields.flavour)  # type: ignore[arg-type]
    if blocked is not None or device is None:
        return f"whole; cannot run here ({blocked})"
    return str(check(entry, {}, device) or "usable here")


def _prune(args: argparse.Namespace) -> int:
    cache = EngineCache(args.root)
    gone = cache.prune(dry_run=args.dry_run)
    for folder, why in gone:
        print(f"{'would remove' if args.dry_run else 'removed'} {folder.relative_to(cache.root)}: {why}")
    if not gone:
        print("nothing to remove")
    return 0
