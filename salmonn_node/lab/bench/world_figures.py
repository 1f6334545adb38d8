"""Figures of the world for bench/RESULTS.md: frames per second, an hour's stream, bag size, questions, pixel sizes."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from salmonn_node.lab.world.asking import ask
from salmonn_node.lab.world.bag import write_bag
from salmonn_node.lab.world.stream import World, play


def frames_a_second(world: World) -> None:
    """Render different views, none of them cached."""
    for width, height, supersample in ((640, 360, 1), (160, 90, 2), (128, 72, 2)):
        with world.camera(width, height, supersample) as camera:
            times = np.arange(60) * 1.37
            camera.picture(0.5)
            start = time.process_time()
            for t in times:
                camera.picture(float(t))
            mid = time.process_time()
            for t in times:
                camera.regions(float(t))
            end = time.process_time()
            print(
                f"{width}x{height}: {60 / (mid - start):.0f} pictures, {60 / (end - mid):.0f} segmentations a CPU s",
                flush=True,
            )


def hour(seed: int, dense: bool, minutes: int) -> None:
    """Measure one stream at 128x72 with sound, its questions, and the pixel sizes of things."""
    world = World(seed, 60 * minutes, dense)
    start, moments = time.process_time(), []
    with world.camera(128, 72, 2) as camera:
        for second in play(world, camera):
            moments.append(second.moment)
    made = time.process_time() - start
    truth = world.truth(moments)
    kind = "dense" if dense else "sparse"
    print(f"{kind}, {minutes} min at 128x72 with sound: {made:.0f} CPU s", flush=True)
    print(f"  {len(world.events) * 60 / minutes:.0f} events an hour", dict(Counter(e.kind for e in world.events)))
    start = time.process_time()
    records = ask(truth, seed, 1500, instants=120)
    print(f"  {len(records)} different questions in {time.process_time() - start:.0f} CPU s", flush=True)
    print("  by kind", dict(sorted(Counter(r.kind for r in records).items())))
    drawn = ask(truth, seed, 2 * minutes)
    print(f"  of {len(drawn)} drawn, {np.mean([r.answerable for r in drawn]):.2f} are answerable")
    sides = [np.sqrt(s.share * 128 * 72) for m in moments for s in m.seen if s.clear]
    print("  side of what is asked about at 128x72, px: 5 %, median, 95 %:", np.percentile(sides, [5, 50, 95]).round(1))
    ages = [r.evidence_age_s for r in drawn if r.evidence]
    print("  age of evidence, s: 5 %, median, 95 %:", np.percentile(ages, [5, 50, 95]).round(0))


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=100_200)
    parser.add_argument("--minutes", type=int, default=60)
    args = parser.parse_args()
    frames_a_second(World(args.seed, 120, dense=True))
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        write_bag(Path(folder) / "bag", World(args.seed, 120))
        size = sum(f.stat().st_size for f in (Path(folder) / "bag").iterdir())
        print(f"bag at 4 fps: {size / 2e6:.2f} MB a minute, {(time.process_time() - start) / 2:.1f} CPU s a minute")
    for dense in (False, True):
        hour(args.seed, dense, args.minutes)


if __name__ == "__main__":
    main()
