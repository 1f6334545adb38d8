"""Frame preprocessing: resize camera images to a pixel budget, normalise, and cut into patches in merge order.

The rules are those of Qwen3-VL's video processor. That one needs torchvision; this module needs torch only.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

MEAN = STD = 0.5
MAX_ASPECT = 200


def resized(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Return height and width: multiples of `factor`, near the image's aspect ratio, within the budget of a frame.

    Raises:
        ValueError: the image is empty, or its aspect ratio exceeds 200.
    """
    if height < 1 or width < 1:
        raise ValueError(f"image of {width}x{height} pixels is empty")
    if min(height, width) < factor:
        scale = max(factor / height, factor / width)
        height, width = int(height * scale), int(width * scale)
    if max(height, width) / min(height, width) > MAX_ASPECT:
        raise ValueError(f"image of {width}x{height} pixels: its aspect ratio exceeds {MAX_ASPECT}")
    high, wide = round(height / factor) * factor, round(width / factor) * factor
    if high * wide > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        high = max(factor, math.floor(height / shrink / factor) * factor)
        wide = max(factor, math.floor(width / shrink / factor) * factor)
    elif high * wide < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        high = math.ceil(height * grow / factor) * factor
        wide = math.ceil(width * grow / factor) * factor
    return high, wide


def fitted(image: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Resize (H, W, 3) uint8 RGB to (h, w, 3) uint8, bicubic with antialiasing.

    Raises:
        ValueError: not an (H, W, 3) uint8 image.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image must be (H, W, 3) uint8, not {image.shape} {image.dtype}")
    # torch warns about read-only arrays, such as a view of a message. np.require copies only those.
    image = np.require(image, requirements=["C", "W"])
    if image.shape[:2] == size:
        return image
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    pixels = functional.interpolate(pixels[None], size=size, mode="bicubic", antialias=True)[0]
    return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())


def normalise(image: npt.NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    """Resize (H, W, 3) uint8 RGB, bicubic with antialiasing, and scale it to -1..1: (3, h, w) float32.

    As in the video processor, the resized image is rounded to integers before it is scaled.

    Raises:
        ValueError: not an (H, W, 3) uint8 image.
    """
    pixels = torch.from_numpy(fitted(image, size)).permute(2, 0, 1)
    return (pixels.float() / 255 - MEAN) / STD


def patchify(first: Tensor, second: Tensor, patch: int, merge: int) -> tuple[Tensor, tuple[int, int]]:
    """Cut two normalised frames (3, H, W) into rows (h * w, 3 * 2 * patch * patch) in merge order. Also return (h, w).

    Merge order: blocks of merge x merge patches in raster order, with raster order within each block. The layout of a
    row is channel, time, y, x.
    """
    clip = torch.stack([first, second])  # (2, 3, H, W)
    frames, channels, height, width = clip.shape
    h, w = height // patch, width // patch
    rows = clip.view(frames, channels, h // merge, merge, patch, w // merge, merge, patch)
    rows = rows.permute(2, 5, 3, 6, 1, 0, 4, 7)  # (h/m, w/m, m, m, channel, time, y, x)
    return rows.reshape(h * w, channels * frames * patch * patch), (h, w)
