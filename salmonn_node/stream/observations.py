"""What was observed: frames, audio spans, poses and intervals, as plain numpy values with int nanosecond stamps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

SECOND_NS = 1_000_000_000
SAMPLE_RATE_HZ = 16_000


@dataclass(frozen=True)
class Interval:
    """A span of time, `start_ns <= end_ns` (int nanoseconds of the stream's clock, both ends included)."""

    start_ns: int
    end_ns: int

    def __post_init__(self) -> None:
        if self.start_ns > self.end_ns:
            raise ValueError(f"interval ends before it starts: start_ns={self.start_ns}, end_ns={self.end_ns}")

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return (self.end_ns - self.start_ns) / SECOND_NS

    def overlaps(self, other: Interval) -> bool:
        """Whether the two spans share at least one instant."""
        return self.start_ns <= other.end_ns and other.start_ns <= self.end_ns


@dataclass(frozen=True)
class Pose:
    """Where the robot was.

    Attributes:
        stamp_ns: time of the estimate.
        frame_id: the frame it is expressed in (map or odom, REP-105).
        position: (3,) float64, metres.
        orientation: (4,) float64, unit quaternion x y z w.
        covariance: (6, 6) float64 over x y z roll pitch yaw (m, rad), or None when unknown.
        map_id: name of the map that `frame_id` belongs to; empty when there is none.
        child_frame_id: the frame whose pose this is, usually base_link.
    """

    stamp_ns: int
    frame_id: str
    position: npt.NDArray[np.float64]
    orientation: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64] | None = None
    map_id: str = ""
    child_frame_id: str = "base_link"

    def to_state(self) -> list[Any]:
        """JSON values in the order of the attributes, from which `from_state` makes the same pose, bit for bit."""
        covariance = None if self.covariance is None else np.asarray(self.covariance, np.float64).tolist()
        position = np.asarray(self.position, np.float64).tolist()
        orientation = np.asarray(self.orientation, np.float64).tolist()
        return [int(self.stamp_ns), self.frame_id, position, orientation, covariance, self.map_id, self.child_frame_id]

    @classmethod
    def from_state(cls, state: list[Any]) -> Pose:
        """The pose that `to_state` described; raises TypeError or ValueError when the values are malformed."""
        stamp_ns, frame_id, position, orientation, covariance, map_id, child_frame_id = state
        return cls(
            stamp_ns,
            frame_id,
            np.array(position, np.float64),
            np.array(orientation, np.float64),
            None if covariance is None else np.array(covariance, np.float64),
            map_id,
            child_frame_id,
        )


@dataclass(frozen=True)
class Frame:
    """One camera image.

    Attributes:
        stamp_ns: header stamp, > 0.
        source: the camera's name.
        image: (H, W, 3) uint8 RGB; a view of the message where the encoding allows it.
        frame_id: the sensor's optical frame.
    """

    stamp_ns: int
    source: str
    image: npt.NDArray[np.uint8]
    frame_id: str = ""


@dataclass(frozen=True)
class EncodedFrame:
    """One camera image that has not been converted yet, so that the frames which are not sampled cost nothing.

    Attributes:
        stamp_ns: header stamp, > 0.
        source: the camera's name.
        decode: gives the (H, W, 3) uint8 RGB image; raises ValueError when the bytes are damaged.
        frame_id: the sensor's optical frame.
    """

    stamp_ns: int
    source: str
    decode: Callable[[], npt.NDArray[np.uint8]] = field(repr=False)
    frame_id: str = ""


@dataclass(frozen=True)
class AudioSpan:
    """Contiguous sound of one microphone.

    Attributes:
        start_ns: stamp of the first sample.
        source: the microphone's name.
        samples: (n,) float32 mono in -1..1 at 16 kHz.
        frame_id: the sensor's frame.
    """

    start_ns: int
    source: str
    samples: npt.NDArray[np.float32] = field(repr=False)
    frame_id: str = ""

    @property
    def end_ns(self) -> int:
        """Stamp just after the last sample."""
        return self.start_ns + round(len(self.samples) * SECOND_NS / SAMPLE_RATE_HZ)


@dataclass(frozen=True)
class AudioChunk:
    """One message of a microphone as it came, before the audio timeline makes 16 kHz mono of it.

    Attributes:
        stamp_ns: stamp of the first sample, > 0.
        source: the microphone's name.
        samples: (n, channels) float32 in -1..1.
        rate_hz: samples per second and channel.
        frame_id: the sensor's frame.
    """

    stamp_ns: int
    source: str
    samples: npt.NDArray[np.float32] = field(repr=False)
    rate_hz: int = SAMPLE_RATE_HZ
    frame_id: str = ""
