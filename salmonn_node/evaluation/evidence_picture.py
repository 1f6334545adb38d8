"""Evidence picture: the thumbnail of a piece of evidence, with a box around what the answer is based on."""

from __future__ import annotations

import cv2
import numpy as np

from salmonn_node.stream.answers import Evidence

COLOUR_BGR = (0, 220, 255)
QUALITY = 85


def picture_of(evidence: Evidence) -> bytes:
    """Draw the region on the thumbnail's JPEG. Unchanged without a region, empty without a thumbnail."""
    region = evidence.region
    if not evidence.thumbnail or region is None:
        return evidence.thumbnail
    image = cv2.imdecode(np.frombuffer(evidence.thumbnail, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        return evidence.thumbnail
    across, down = image.shape[1] / region.picture_width, image.shape[0] / region.picture_height
    start = (round(region.x * across), round(region.y * down))
    end = (round((region.x + region.width) * across) - 1, round((region.y + region.height) * down) - 1)
    cv2.rectangle(image, start, end, COLOUR_BGR, 1)
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return bytes(data.tobytes()) if done else evidence.thumbnail
