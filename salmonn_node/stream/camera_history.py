"""The intrinsics of cameras by time: a lens zooms, a camera restarts with another size or is calibrated late."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from salmonn_node.stream.camera_model import CameraModel
from salmonn_node.stream.observations import SECOND_NS

NEW_START_NS = 5 * SECOND_NS  # a model stamped so far before the newest: time runs anew, as when a bag is restarted


@dataclass
class _CameraTrack:
    """Models of one camera by the stamp from which each holds, changes only."""

    stamps: list[int] = field(default_factory=list)
    models: list[CameraModel] = field(default_factory=list)


class CameraHistory:
    """Camera models by source name and time; any thread may call.

    Args:
        capacity: changes kept of each camera; the oldest go first.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        self._capacity = capacity
        self._tracks: dict[str, _CameraTrack] = {}
        self._lock = threading.Lock()

    def add(self, source: str, stamp_ns: int, model: CameraModel) -> None:
        """Keep a camera's model, which holds from `stamp_ns` on; one that says nothing new is passed over."""
        with self._lock:
            track = self._tracks.setdefault(source, _CameraTrack())
            if track.stamps and stamp_ns < track.stamps[-1] - NEW_START_NS:
                track = self._tracks[source] = _CameraTrack()
            place = bisect.bisect_right(track.stamps, stamp_ns)
            if place > 0 and _same(track.models[place - 1], model):
                return
            track.stamps.insert(place, stamp_ns)
            track.models.insert(place, model)
            if len(track.stamps) > self._capacity:
                del track.stamps[0], track.models[0]

    def at(self, source: str, stamp_ns: int) -> CameraModel | None:
        """A camera's model at a time; before the first one that was heard, the first. None for an unknown camera."""
        with self._lock:
            track = self._tracks.get(source)
            if track is None:
                return None
            return track.models[max(0, bisect.bisect_right(track.stamps, stamp_ns) - 1)]

    def to_values(self) -> dict[str, list[list[Any]]]:
        """All models as JSON: by source, the stamp and the fields of each."""
        with self._lock:
            return {
                source: [
                    [at, m.width, m.height, m.matrix.tolist(), m.distortion_model, m.coefficients.tolist(), m.frame_id]
                    for at, m in zip(track.stamps, track.models, strict=True)
                ]
                for source, track in self._tracks.items()
            }

    def restore(self, values: Mapping[str, Sequence[Sequence[Any]]]) -> None:
        """Take over what `to_values` gave."""
        for source, rows in values.items():
            for at, width, height, matrix, model, coefficients, frame_id in rows:
                bent = np.array(coefficients, np.float64)
                self.add(source, at, CameraModel(width, height, np.array(matrix), model, bent, frame_id))


def _same(one: CameraModel, other: CameraModel) -> bool:
    return (
        (one.width, one.height, one.distortion_model, one.frame_id)
        == (other.width, other.height, other.distortion_model, other.frame_id)
        and np.array_equal(one.matrix, other.matrix)
        and np.array_equal(one.coefficients, other.coefficients)
    )
