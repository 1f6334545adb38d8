"""How a camera forms its picture: size, pinhole matrix and distortion, as CameraInfo tells them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class CameraModel:
    """Intrinsics of a picture as the camera sends it, not rectified.

    Attributes:
        width, height: of the picture, pixels.
        matrix: (3, 3) float64, the pinhole matrix K, pixels.
        distortion_model: "plumb_bob", "rational_polynomial" or "equidistant"; says nothing when all coefficients are 0.
        coefficients: (n,) float64 of the distortion.
        frame_id: the camera's optical frame (z forward, x right, y down).

    Raises:
        ValueError: a size or focal length that is not positive, or numbers that are not finite.
    """

    width: int
    height: int
    matrix: npt.NDArray[np.float64]
    distortion_model: str
    coefficients: npt.NDArray[np.float64]
    frame_id: str

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"width and height must be positive, got {self.width} x {self.height}")
        if self.matrix.shape != (3, 3) or not np.isfinite(self.matrix).all():
            raise ValueError(f"matrix must be (3, 3) and finite, got {self.matrix.tolist()}")
        if min(self.matrix[0, 0], self.matrix[1, 1]) <= 0 or self.matrix[2, 2] != 1:
            raise ValueError(f"matrix is not that of a calibrated camera: {self.matrix.tolist()}")
        if self.coefficients.ndim != 1 or not np.isfinite(self.coefficients).all():
            raise ValueError(f"coefficients must be (n,) and finite, got {self.coefficients.tolist()}")
