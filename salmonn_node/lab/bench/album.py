"""Which distinct scenes are among the pictures that the album keeps, on streams of real photographs with revisits.

The photographs are those of scikit-image, whole or cut into parts. A stream visits them again and again, some often and
some once, with small shifts, zoom and brightness; a twentieth of its pictures is spoilt. Beside the album stand fixed
choices of the same number: evenly spaced and the last.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from rich.table import Table

from salmonn_node.memory.album import Album, Picture, describe
from salmonn_node.stream.observations import SECOND_NS

WHOLE = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "cell.png",
    "chelsea.png",
    "clock_motion.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
    "text.png",
)
# Photographs that look different in each part are cut into so many columns and rows.
PARTS = {name: (2, 2) for name in ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "ihc.png")}
PARTS |= {"moon.png": (2, 2), "rocket.jpg": (2, 2), "motorcycle_left.png": (3, 2), "hubble_deep_field.jpg": (3, 3)}
PARTS |= {"retina.jpg": (3, 3), "page.png": (2, 1), "text.png": (2, 1), "clock_motion.png": (2, 1), "cell.png": (1, 2)}
SIZE_PX = (160, 90)
SECONDS = 1200
# (scenes, pictures kept) of a row, and the longest visit in seconds.
SETTINGS = (("whole", 16, 60), ("whole", 32, 60), ("parts", 64, 24), ("parts", 200, 24))


def run(args: argparse.Namespace) -> dict[str, Any]:
    """All settings, with and without spoilt pictures."""
    folder = args.images or _photographs()
    rows = []
    for kind, kept, longest_s in SETTINGS:
        scenes = _scenes(folder, kind)
        for spoilt in (0.0, args.spoilt):
            shares: dict[str, list[float]] = defaultdict(list)
            for seed in range(args.seeds):
                frames, labels = stream(scenes, seed, spoilt, longest_s)
                for rule, chosen in _chosen(frames, kept).items():
                    seen = {int(labels[i]) for i in chosen} - {-1}
                    shares[rule].append(len(seen) / len(set(labels.tolist()) - {-1}))
                    shares[f"{rule}: spoilt"].append(float(np.mean([labels[i] == -1 for i in chosen])))
            rows.append({"kind": kind, "scenes": len(scenes), "kept": kept, "spoilt": spoilt, "shares": dict(shares)})
    return {"rows": rows}


def _photographs() -> Path:
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise FileNotFoundError("--images: scikit-image is not installed; give a folder of photographs")
    return Path(found.origin).parent / "data"


def _scenes(folder: Path, kind: str) -> list[npt.NDArray[np.uint8]]:
    out = []
    names = WHOLE if (folder / WHOLE[0]).is_file() else sorted(p.name for p in folder.iterdir())
    for name in names:
        image = cv2.imread(str(folder / name))
        if image is None:
            continue
        image = np.asarray(image[:, :, ::-1], np.uint8)
        columns, rows = (1, 1) if kind == "whole" else PARTS.get(name, (1, 1))
        height, width = image.shape[0] // rows, image.shape[1] // columns
        for row in range(rows):
            for column in range(columns):
                part = image[row * height : (row + 1) * height, column * width : (column + 1) * width]
                out.append(np.ascontiguousarray(part))
    if len(out) < 2:
        raise FileNotFoundError(f"--images: {folder} holds fewer than two photographs")
    return out


def stream(
    scenes: list[npt.NDArray[np.uint8]], seed: int, spoilt: float, longest_s: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Frames (S, 90, 160, 3), one a second, and the scene that each shows, -1 for a spoilt one."""
    rng = np.random.default_rng([seed, len(scenes)])
    weights = 1 / (1 + np.arange(len(scenes)))
    order, weights = rng.permutation(len(scenes)), weights / weights.sum()
    visits: list[tuple[int, int]] = []
    spare = 5 * len(scenes)  # for those that chance leaves out
    while sum(seconds for _, seconds in visits) < SECONDS - spare:
        seconds = round(float(np.exp(rng.uniform(np.log(3), np.log(longest_s)))))
        visits.append((int(order[rng.choice(len(scenes), p=weights)]), seconds))
    for missing in sorted(set(range(len(scenes))) - {scene for scene, _ in visits}):
        visits.insert(int(rng.integers(len(visits) + 1)), (missing, int(rng.integers(3, 7))))
    frames, labels = [], []
    for scene, seconds in visits:
        x, y, zoom, gain = *rng.uniform(-0.2, 0.2, 2), rng.uniform(0.85, 1), rng.uniform(0.75, 1.2)
        for _ in range(seconds):
            shaken = x + rng.normal(0, 0.03), y + rng.normal(0, 0.03)
            frame = _window(scenes[scene], *shaken, zoom * rng.uniform(0.97, 1), gain * rng.uniform(0.97, 1.03))
            bad = rng.random() < spoilt
            frames.append(_spoil(frame, rng) if bad else frame)
            labels.append(-1 if bad else scene)
    return np.stack(frames), np.array(labels)


def _window(image: npt.NDArray[np.uint8], x: float, y: float, zoom: float, gain: float) -> npt.NDArray[np.uint8]:
    """A view of a photograph: shifted by shares of the spare room, zoomed and brightened."""
    high, wide = image.shape[:2]
    width = min(wide, high * SIZE_PX[0] / SIZE_PX[1]) * 0.85 * zoom
    height = width * SIZE_PX[1] / SIZE_PX[0]
    left = int(np.clip((wide - width) * (0.5 + x), 0, wide - width))
    top = int(np.clip((high - height) * (0.5 + y), 0, high - height))
    part = image[top : top + max(1, int(height)), left : left + max(1, int(width))]
    small = cv2.resize(part, SIZE_PX, interpolation=cv2.INTER_AREA)
    return np.clip(small.astype(np.float32) * gain, 0, 255).astype(np.uint8)


def _spoil(frame: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Smeared, too bright, too dark, or out of focus."""
    how = int(rng.integers(4))
    if how == 1:
        return np.clip(frame.astype(np.float32) * rng.uniform(3, 6) + 90, 0, 255).astype(np.uint8)
    if how == 2:
        return np.asarray(frame * rng.uniform(0.02, 0.1), np.uint8)
    blurred = cv2.blur(frame, (61, 1) if how == 0 else (41, 41))
    return np.asarray(np.roll(blurred, int(rng.integers(SIZE_PX[0])), 1) if how == 3 else blurred, np.uint8)


def _chosen(frames: npt.NDArray[np.uint8], kept: int) -> dict[str, list[int]]:
    album = Album(kept)
    for number, frame in enumerate(frames):
        album.offer(Picture(0, number * SECOND_NS, b""), describe(frame))
    count = len(frames)
    return {
        "album": [p.stamp_ns // SECOND_NS for p in album.pictures],
        "uniform": [int((i + 0.5) * count / kept) for i in range(kept)],
        "last": list(range(max(0, count - kept), count)),
    }


def tables(results: dict[str, Any]) -> list[Table]:
    """Share of the scenes, least and most of the streams; in brackets the share of spoilt pictures among those kept."""
    table = Table("scenes", "pictures kept", "spoilt", "album", "uniform", "last")
    for row in results["rows"]:
        cells = []
        for rule in ("album", "uniform", "last"):
            found, bad = row["shares"][rule], row["shares"][f"{rule}: spoilt"]
            cells.append(f"{np.mean(found):.2f} ({min(found):.2f} to {max(found):.2f}) [{np.mean(bad):.2f}]")
        table.add_row(f"{row['scenes']} {row['kind']}", str(row["kept"]), f"{row['spoilt']:.0%}", *cells)
    table.title = "share of distinct scenes among the pictures kept"
    return [table]
