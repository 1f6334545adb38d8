"""Image region: the box in a picture that the weights of its tokens point at."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from salmonn_node.stream.answers import Region

HALF = 0.5  # a token belongs to the box if it has at least this share of the heaviest token's weight
MAX_SHARE = 0.5  # a box that covers more of the picture than this means nothing


def region_of(
    places: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float64],
    grid: tuple[int, int],
    picture: tuple[int, int],
) -> Region | None:
    """Box around the heaviest token and the heavy tokens connected to it; None when the weights point nowhere.

    Tokens are in raster order over the whole picture, at whatever size the network saw it. A token that the memory has
    discarded has no weight, so the box never covers what was not read.

    Args:
        places: (n,) raster indices y * w + x of the tokens in the grid.
        weights: (n,) non-negative weights of the tokens.
        grid: (h, w) tokens of the picture.
        picture: (width, height) of the picture as the camera sent it, pixels.
    """
    (rows, columns), (wide, high) = grid, picture
    if len(places) == 0 or rows * columns < 2 or not weights.max() > 0:
        return None
    field = np.zeros(rows * columns)
    np.add.at(field, places, weights)
    heavy = (field >= HALF * field.max()).reshape(rows, columns)
    labels = cv2.connectedComponents(heavy.astype(np.uint8), connectivity=8)[1]
    y, x = np.nonzero(labels == labels.reshape(-1)[int(field.argmax())])
    top, bottom, left, right = int(y.min()), int(y.max()) + 1, int(x.min()), int(x.max()) + 1
    if (bottom - top) * (right - left) > MAX_SHARE * rows * columns:
        return None
    x0, x1 = round(left * wide / columns), round(right * wide / columns)
    y0, y1 = round(top * high / rows), round(bottom * high / rows)
    return Region(x0, y0, max(1, x1 - x0), max(1, y1 - y0), wide, high, high / rows)
