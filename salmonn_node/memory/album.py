"""The album: a fixed number of pictures of a stream, chosen online. What lasts enters; of two alike one goes.

A picture lasts when it resembles the one before it of the same camera. So a blurred or overexposed moment stays out.
Of a place that comes back, the newest picture stays, or the first one, as the album is set. What is unlike everything
else stays for hours.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

GREY_PX = 16
# Bins of hue, saturation and value.
BINS = (8, 4, 4)
DESCRIPTOR = GREY_PX * GREY_PX + BINS[0] * BINS[1] * BINS[2]
# Cosine of two descriptors from which a picture lasts.
LASTS_ABOVE = 0.8
# Two grey pictures are compared at the best shift of at most so many of their pixels: who comes back to a place stands
# a little elsewhere.
SHIFT_PX = 2
NEWEST, FIRST = "newest", "first"


class Picture(NamedTuple):
    """A small JPEG picture of a camera.

    Attributes:
        source: id of the camera in its memory.
        stamp_ns: stamp of the frame.
        jpeg: the bytes.
    """

    source: int
    stamp_ns: int
    jpeg: bytes


class Album:
    """At most `size` lasting pictures that are unlike each other. The same stream gives the same album.

    Args:
        size: number of pictures kept.
        keep: which of the two most alike pictures stays, NEWEST or FIRST.

    Attributes:
        pictures: in the order in which they came.
    """

    def __init__(self, size: int = 200, keep: str = NEWEST) -> None:
        if size < 2:
            raise ValueError(f"size: expected at least 2 pictures, got {size}")
        if keep not in (NEWEST, FIRST):
            raise ValueError(f"keep: expected {NEWEST} or {FIRST}, got {keep!r}")
        self.size, self.keep = size, keep
        self.pictures: list[Picture] = []
        self._descriptors = np.empty((0, DESCRIPTOR), np.float32)
        self._alike = np.empty((0, 0), np.float32)
        self._last: dict[int, npt.NDArray[np.float32]] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of pictures and descriptors."""
        return sum(len(p.jpeg) for p in self.pictures) + int(self._descriptors.nbytes)

    def offer(self, picture: Picture, found: npt.NDArray[np.float32]) -> None:
        """Take a picture in if it lasts; `found` is what `describe` gives for it."""
        before = self._last.get(picture.source)
        self._last[picture.source] = found
        if before is None or float(found @ before) < LASTS_ABOVE:
            return
        cosines = likeness(self._descriptors, found)
        self._descriptors = np.concatenate([self._descriptors, found[None]])
        self.pictures.append(picture)
        count = len(self.pictures)
        alike = np.full((count, count), -2.0, np.float32)
        alike[:-1, :-1] = self._alike
        alike[-1, :-1] = alike[:-1, -1] = cosines
        self._alike = alike
        if count > self.size:
            one, other = np.unravel_index(int(alike.argmax()), alike.shape)
            gone = min(one, other) if self.keep == NEWEST else max(one, other)
            self._select([i for i in range(count) if i != gone])

    def _select(self, rows: list[int]) -> None:
        self.pictures = [self.pictures[i] for i in rows]
        self._descriptors = self._descriptors[rows]
        self._alike = self._alike[np.ix_(rows, rows)]

    def forget(self, after_ns: int, before_ns: int) -> int:
        """Remove the pictures of [after_ns, before_ns]; returns how many went."""
        rows = [i for i, p in enumerate(self.pictures) if not after_ns <= p.stamp_ns <= before_ns]
        gone = len(self.pictures) - len(rows)
        self._select(rows)
        self._last = {}
        return gone

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The descriptors as tensors; the pictures are stored by the owner."""
        last = [torch.from_numpy(self._last[s].copy()) for s in self._last]
        tensors = {"descriptors": torch.from_numpy(self._descriptors.copy())}
        tensors["last"] = torch.stack(last) if last else torch.empty(0, DESCRIPTOR)
        # Stored, not computed again: a product of other shapes may differ in its last bit.
        tensors["alike"] = torch.from_numpy(self._alike.copy())
        return tensors, {"last": list(self._last)}

    def restore(self, pictures: list[Picture], tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Continue from what `to_tensors` gave.

        Raises:
            KeyError: something is missing.
        """
        self.pictures = list(pictures)
        self._descriptors, self._alike = tensors["descriptors"].numpy().copy(), tensors["alike"].numpy().copy()
        self._last = {int(s): row.numpy().copy() for s, row in zip(meta["last"], tensors["last"], strict=True)}


def describe(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(DESCRIPTOR,) float32 of length 1: small grey picture and colour histogram of an (H, W, 3) uint8 RGB image."""
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (GREY_PX, GREY_PX), interpolation=cv2.INTER_AREA)
    shape = grey.astype(np.float32).ravel()
    shape = (shape - shape.mean()) / (shape.std() + 4)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    counts = cv2.calcHist([hsv], [0, 1, 2], None, list(BINS), [0, 180, 0, 256, 0, 256])
    parts = [_unit(shape), _unit(np.sqrt(counts.astype(np.float32).ravel()))]
    return _unit(np.concatenate(parts))


def likeness(descriptors: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """How alike pictures are to another: the mean of two cosines, of grey pictures at their best shift and of colours.

    Args:
        descriptors: (n, DESCRIPTOR) float32, as `describe` gives them.
        found: (DESCRIPTOR,) float32.

    Returns:
        (n,) float32 of at most 1.
    """
    pixels = GREY_PX * GREY_PX
    greys, moved = descriptors[:, :pixels], _moved(found[:pixels])
    sizes = (greys * greys) @ INSIDE.T * (moved * moved).sum(1)
    best = (greys @ moved.T / np.sqrt(sizes + 1e-12)).max(1)
    # A description has length 1, and its two parts are equally long.
    return np.asarray(best / 2 + descriptors[:, pixels:] @ found[pixels:], np.float32)


def _moved(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(shifts, pixels): a grey picture moved by each shift, 0 where nothing of it is."""
    padded = np.pad(grey.reshape(GREY_PX, GREY_PX), SHIFT_PX)
    return np.lib.stride_tricks.sliding_window_view(padded, (GREY_PX, GREY_PX)).reshape(-1, GREY_PX * GREY_PX)


# The pixels that a moved picture covers.
INSIDE = _moved(np.ones(GREY_PX * GREY_PX, np.float32))


def _unit(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(x / (np.linalg.norm(x) + 1e-9), np.float32)
