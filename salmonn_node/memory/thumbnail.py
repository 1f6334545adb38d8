"""Thumbnails: the small JPEG images of evidence."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

THUMBNAIL_PX = 160


def encode_thumbnail(image: npt.NDArray[np.uint8], longest_px: int = THUMBNAIL_PX, quality: int = 80) -> bytes:
    """Encode an (H, W, 3) uint8 RGB image as JPEG. The longer side is reduced to at most `longest_px` pixels."""
    height, width = image.shape[:2]
    scale = longest_px / max(height, width)
    if scale < 1.0:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    bgr = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"image of shape {image.shape} cannot be encoded as JPEG")
    return bytes(data.tobytes())
