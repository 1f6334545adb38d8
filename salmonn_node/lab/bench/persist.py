"""Persistence benchmark: time of snapshot and restore, pause of ingest, journal times, bytes per hour."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.table import Table

from salmonn_node.memory.evidence_index import EvidenceIndex
from salmonn_node.memory.thumbnail import encode_thumbnail
from salmonn_node.storage.journal import encode_record
from salmonn_node.storage.snapshot import Identity
from salmonn_node.storage.state import State
from salmonn_node.storage.store import MemoryStore
from salmonn_node.stream.moment import Moment
from salmonn_node.stream.observations import SECOND_NS, AudioSpan, Frame, Interval, Pose

# name -> (frame height, width), kept tokens (visual, audio), width, deepstack rows, fast weights (heads, D), lag, dtype
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"frame": (96, 160), "tokens": (1024, 256), "width": 128, "rows": 3, "fast": (4, 32), "mini_batch": 64,
             "lag": 128, "dtype": torch.float32},
    "8B": {"frame": (288, 544), "tokens": (16_384, 4_096), "width": 4096, "rows": 3, "fast": (8, 512),
           "mini_batch": 1024, "lag": 1024, "dtype": torch.bfloat16},
}  # fmt: skip
POSES_PER_S = 10
PIECE_SAMPLES = 1600


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure each shape in a temporary directory."""
    figures = {}
    for name in args.shapes:
        with tempfile.TemporaryDirectory(dir=args.directory, prefix="salmonn-persist-") as folder:
            figures[name] = _measure(SHAPES[name], Path(folder), args)
    return figures


def full_state(shape: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Make tensors of a full memory with a waiting mini-batch. They are noise, so they do not compress."""
    visual, audio = shape["tokens"]
    width, deep, (heads, inner) = shape["width"], shape["width"] * (1 + shape["rows"]), shape["fast"]
    dtype = shape["dtype"]
    sizes = {"visual.features": (visual, deep), "audio.features": (audio, width),
             "waiting.features": (shape["mini_batch"], deep), "ttt.lag_rows": (shape["lag"], width)}  # fmt: skip
    tensors = {name: torch.empty(size, dtype=dtype) for name, size in sizes.items()}
    tensors |= {f"ttt.{name}": torch.empty(heads, inner, inner) for name in ("W1", "W2")}
    chance = np.random.default_rng(0)
    for tensor in tensors.values():
        raw = tensor.view(torch.uint8).reshape(-1)
        block = torch.from_numpy(chance.integers(0, 255, min(raw.numel(), 1 << 24), np.uint8))
        for start in range(0, raw.numel(), len(block)):
            piece = raw[start : start + len(block)]
            piece.copy_(block[: len(piece)])
    return tensors


def picture(size: tuple[int, int], seed: int) -> np.ndarray:
    """Make a smooth scene with sensor noise of two grey levels, as realistic input for a lossless coder."""
    chance = np.random.default_rng(seed)
    coarse = chance.integers(0, 255, (size[0] // 24, size[1] // 24, 3)).astype(np.float32)
    scene = cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
    return np.clip(scene + chance.normal(0, 2, scene.shape), 0, 255).astype(np.uint8)


def _measure(shape: dict[str, Any], folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    identity = Identity("bench", "bench")
    store = MemoryStore(folder, "m", identity, max_bytes=1 << 40, keep=2)
    tensors = full_state(shape)
    pauses, writes = [], []
    for _ in range(args.snapshots):
        begin = time.perf_counter()
        copy = State({name: tensor.clone() for name, tensor in tensors.items()}, {}, 1, 2)
        store.snapshot(copy, beside=True)
        pauses.append(time.perf_counter() - begin)
        store.wait()
        if store.problem:
            raise OSError(store.problem)
        writes.append(store.last_snapshot_s)
    snapshot_bytes = store.bytes_written // args.snapshots
    journal = _journal(store, shape, args.seconds)
    store.close()
    restored: dict[str, torch.Tensor] = {}
    begin = time.perf_counter()
    store = MemoryStore(folder, "m", identity, max_bytes=1 << 40, keep=2)
    opened = store.restore(lambda found, values: restored.update(found), lambda record: None)
    restore_s = time.perf_counter() - begin
    store.close()
    same = all(torch.equal(restored[n].view(torch.uint8), t.view(torch.uint8)) for n, t in tensors.items())
    evidence_h = _evidence_bytes(folder, shape)
    snapshots_h = snapshot_bytes * 3600 / args.period
    journal_h = journal.pop("bytes") * 3600 / args.seconds
    return {
        "snapshot_bytes": snapshot_bytes,
        "snapshot_s": float(np.median(writes)),
        "restore_s": restore_s,
        "restored_bit_equal": same,
        "records_read_back": opened.records,
        "pause_p50_ms": 1e3 * float(np.median(pauses)),
        "pause_p99_ms": 1e3 * float(np.quantile(pauses, 0.99)),
        **journal,
        "journal_bytes_h": journal_h,
        "raw_frames_bytes_h": 3600 * 3 * shape["frame"][0] * shape["frame"][1],
        "evidence_bytes_h": evidence_h,
        "snapshots_bytes_h": snapshots_h,
        "bytes_h": journal_h + evidence_h + snapshots_h,
        "period_s": args.period,
    }


def _journal(store: MemoryStore, shape: dict[str, Any], seconds: int) -> dict[str, Any]:
    """Append a stream of one camera at 1 FPS, sound and poses to the journal. Return milliseconds by kind."""
    chance = np.random.default_rng(1)
    took: dict[str, list[float]] = {"frame": [], "sound": [], "pose": []}
    before = store.bytes_written
    pictures = [picture(shape["frame"], n) for n in range(8)]
    for second in range(seconds):
        stamp_ns = (1 + second) * SECOND_NS
        records: list[tuple[str, Frame | AudioSpan | Pose]] = [
            ("frame", Frame(stamp_ns, "front", pictures[second % 8]))
        ]
        for n in range(16_000 // PIECE_SAMPLES):
            samples = (chance.normal(0, 0.05, PIECE_SAMPLES) * 32768).round().clip(-32768, 32767) / 32768
            start_ns = stamp_ns + n * SECOND_NS // 10
            records.append(("sound", AudioSpan(start_ns, "mic", samples.astype(np.float32))))
        for n in range(POSES_PER_S):
            position = chance.normal(size=3)
            pose = Pose(stamp_ns + n * SECOND_NS // POSES_PER_S, "map", position, np.array([0, 0, 0, 1.0]), np.eye(6))
            records.append(("pose", pose))
        for kind, record in records:
            begin = time.perf_counter()
            if not store.append(record):
                raise OSError(store.problem)
            took[kind].append(1e3 * (time.perf_counter() - begin))
    figures: dict[str, Any] = {"bytes": store.bytes_written - before}
    for kind, times in took.items():
        figures[f"append_{kind}_p50_ms"] = float(np.median(times))
        figures[f"append_{kind}_p99_ms"] = float(np.quantile(times, 0.99))
    figures["frame_record_bytes"] = len(encode_record(Frame(1, "front", pictures[0])))
    return figures


def _evidence_bytes(folder: Path, shape: dict[str, Any]) -> float:
    """Bytes per hour written by the evidence index. They count twice: SQLite writes them to the WAL and the file."""
    path = folder / "evidence.db"
    index = EvidenceIndex(path)
    count = 200
    for n in range(count):
        pose = Pose(n, "map", np.zeros(3), np.array([0, 0, 0, 1.0]), np.eye(6))
        thumbnail = encode_thumbnail(picture(shape["frame"], n % 8))
        index.add(Moment("vision", n, n + 1, Interval(n, n), "front", "", index.add_pose(pose), thumbnail))
    index.close()
    return 2 * path.stat().st_size / count * 1800


def tables(results: dict[str, Any]) -> list[Table]:
    """Make a table with one column per shape."""
    table = Table("figure", *results, title="a memory on disk")
    mib, rows = 1 << 20, []
    rows.append(("snapshot, MiB", "snapshot_bytes", mib))
    rows += [
        ("snapshot written beside ingest, s", "snapshot_s", 1),
        ("restore, journal not re-encoded, s", "restore_s", 1),
    ]
    rows += [("ingest pause p50, ms", "pause_p50_ms", 1), ("ingest pause p99, ms", "pause_p99_ms", 1)]
    for kind in ("frame", "sound", "pose"):
        rows += [(f"journal one {kind}, p50 ms", f"append_{kind}_p50_ms", 1), ("  p99", f"append_{kind}_p99_ms", 1)]
    for label in ("journal", "raw_frames", "evidence", "snapshots"):
        rows.append((f"{label.replace('_', ' ')}, MiB an hour", f"{label}_bytes_h", mib))
    rows.append(("all that is written, MiB an hour", "bytes_h", mib))
    for label, key, unit in rows:
        table.add_row(label, *(f"{figures[key] / unit:.2f}" for figures in results.values()))
    table.add_row("restored bit-equal", *("yes" if f["restored_bit_equal"] else "NO" for f in results.values()))
    return [table]
