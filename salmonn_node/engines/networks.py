"""Towers to build engines for, from a profile or a checkpoint, and samples to test them with."""

from __future__ import annotations

import importlib
import importlib.util
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from salmonn_node.engines.spec import folder_name
from salmonn_node.model import checkpoint
from salmonn_node.model.config import AudioConfig, SalmonnConfig
from salmonn_node.model.frames import normalise, patchify, resized
from salmonn_node.model.towers import AudioTower, VisionTower

DEFAULT_CAMERA = (640, 360)
PHOTOGRAPHS = ("astronaut", "coffee")  # files of scikit-image's wheel


@dataclass
class Towers:
    """Both towers of a network in evaluation mode, on the CPU. `trained` is False for random weights."""

    name: str
    config: SalmonnConfig
    vision: VisionTower
    audio: AudioTower | None
    trained: bool


def checkpoint_towers(name: str | Path) -> Towers:
    """Load the towers of a checkpoint, given as folder or name. Raises ValueError if it is neither."""
    model = checkpoint.load(str(name))
    network = model.network
    return Towers(folder_name(model.config.name), model.config, network.vision, network.audio, model.checkpoint.trained)


def random_towers(config: SalmonnConfig, seed: int = 0) -> Towers:
    """Make the towers of a configuration with random weights from a seed, without the language model."""
    torch.manual_seed(seed)
    vision = VisionTower(config).eval().requires_grad_(False)
    audio = AudioTower(config.audio, config.hidden_size).eval().requires_grad_(False) if config.audio else None
    return Towers(folder_name(config.name), config, vision, audio, trained=False)


def camera_grid(config: SalmonnConfig, width: int, height: int) -> tuple[int, int]:
    """Return (rows, columns) of patches for the images of a camera within the network's pixel budget."""
    patch, merge = int(config.vision["patch_size"]), int(config.vision["spatial_merge_size"])
    high, wide = resized(height, width, patch * merge, config.frames.min_pixels, config.frames.max_pixels)
    return high // patch, wide // patch


def frame_samples(paths: list[Path], config: SalmonnConfig, grid: tuple[int, int]) -> list[tuple[str, Tensor]]:
    """Load images as inputs of the vision encoder, each paired with itself.

    Args:
        paths: image files. If empty, two photographs of scikit-image, if it is installed.
        config: configuration of the network.
        grid: (rows, columns) of patches.

    Raises:
        ValueError: a file is not an image.
    """
    import cv2

    pictures: list[tuple[str, np.ndarray]] = []
    for path in paths:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f"{path}: cannot be read as an image")
        pictures.append((path.name, image[:, :, ::-1]))
    if not paths and importlib.util.find_spec("skimage"):
        data = importlib.import_module("skimage.data")
        pictures = [(name, getattr(data, name)()) for name in PHOTOGRAPHS]
    patch, merge = int(config.vision["patch_size"]), int(config.vision["spatial_merge_size"])
    found = []
    for name, picture in pictures:
        frame = normalise(np.ascontiguousarray(picture), (grid[0] * patch, grid[1] * patch))
        found.append((name, patchify(frame, frame, patch, merge)[0][None]))
    return found


def clip_samples(paths: list[Path], audio: AudioConfig) -> list[tuple[str, Tensor]]:
    """Load 16 kHz mono 16-bit WAV files as inputs of the audio encoder, cut or padded to one window.

    Raises:
        ValueError: a file has another format.
    """
    from salmonn_node.model.sound import MelFrontEnd

    front, found = MelFrontEnd(audio), []
    for path in paths:
        with wave.open(str(path), "rb") as stream:
            kind = (stream.getframerate(), stream.getnchannels(), stream.getsampwidth())
            if kind != (16_000, 1, 2):
                raise ValueError(f"{path}: {kind} (rate, channels, bytes) is not 16 kHz mono 16-bit")
            raw = np.frombuffer(stream.readframes(audio.window_samples), dtype="<i2")
        found.append((path.name, front(raw.astype(np.float32) / np.float32(32768))[None]))
    return found
