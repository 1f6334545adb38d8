"""Shard: a stream as training data in one safetensors file, with small frames, sound, and the truth per second."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import save_file

from salmonn_node.lab.world.stream import World, play
from salmonn_node.lab.world.truth import Truth
from salmonn_node.lab.world.truth_file import truth_from_json, truth_to_json


@dataclass(frozen=True)
class Shard:
    """A stream at model resolution.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB, one per second.
        audio: (T, 16000) int16, or (T, 0) without sound.
        truth: what was visible and audible in each second.
        seed: seed of the world.
        dense: whether the world is dense.
    """

    frames: npt.NDArray[np.uint8]
    audio: npt.NDArray[np.int16]
    truth: Truth
    seed: int
    dense: bool

    def sound(self, second: int) -> npt.NDArray[np.float32]:
        """(16000,) float32 in -1..1."""
        return self.audio[second].astype(np.float32) / 32767.0


def make_shard(world: World, width: int, height: int, *, audio: bool = True, supersample: int = 2) -> Shard:
    """Render a world, one frame per second. Needs OpenGL."""
    frames = np.empty((world.seconds, height, width, 3), np.uint8)
    sound = np.empty((world.seconds, 16_000 if audio else 0), np.int16)
    moments = []
    with world.camera(width, height, supersample) as camera:
        for k, second in enumerate(play(world, camera, audio=audio)):
            frames[k] = second.frames[0]
            if audio:
                sound[k] = np.rint(second.audio * 32767)
            moments.append(second.moment)
    return Shard(frames, sound, world.truth(moments), world.seed, world.dense)


def write_shard(path: Path, shard: Shard) -> None:
    """Write a shard. Equal shards give equal bytes."""
    about = {"seed": shard.seed, "dense": shard.dense, "truth": truth_to_json(shard.truth)}
    # One entry, because safetensors writes several entries in arbitrary order.
    save_file({"frames": shard.frames, "audio": shard.audio}, str(path), {"world": json.dumps(about)})


def read_shard(path: Path) -> Shard:
    """Read a shard. Needs neither OpenGL nor MuJoCo.

    Raises:
        ValueError: the file is a safetensors file, but not a shard.
    """
    with safe_open(str(path), framework="numpy") as file:
        about = _about(path, file.metadata())
        frames, audio = file.get_tensor("frames"), file.get_tensor("audio")
    return Shard(frames, audio, truth_from_json(about["truth"]), int(about["seed"]), bool(about["dense"]))


def read_truth(path: Path) -> Truth:
    """Read only the truth of a shard. Raises like `read_shard`."""
    with safe_open(str(path), framework="numpy") as file:
        return truth_from_json(_about(path, file.metadata())["truth"])


def _about(path: Path, metadata: dict[str, str] | None) -> dict[str, Any]:
    if not metadata or "world" not in metadata:
        raise ValueError(f"{path} is not a shard of the world: it carries no truth")
    return dict(json.loads(metadata["world"]))
