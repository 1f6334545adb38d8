"""Stream of the soak test: pictures, sound and poses made from numbers, and the memory that they must give.

Second `n` of the stream has picture `n`, pose `n` and the sound from `n` to `n + 1`. A `Course` notes what the node
observed, in order. Observed again by one process without faults, it must give the same memory, bit for bit.
"""

from __future__ import annotations

import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from geometry_msgs.msg import Point, PoseStamped, Quaternion
from geometry_msgs.msg import Pose as PoseMessage
from sensor_msgs.msg import Image

from salmonn_interfaces.msg import AudioChunk
from salmonn_node.messages.base import RosTypes, header_message
from salmonn_node.stream.observations import SECOND_NS

CAMERA, MICROPHONE = "camera", "microphone"
FIRST_NS = 1_000 * SECOND_NS
RATE_HZ = 16_000
WIDTH, HEIGHT = 64, 48
TYPES = RosTypes()
BAD_PICTURES: tuple[dict[str, Any], ...] = ({"step": 1}, {"encoding": "smoke"}, {"height": 2**31}, {"width": 0})
BAD_SOUNDS: tuple[dict[str, Any], ...] = ({"sample_rate_hz": 0}, {"channels": 0}, {"encoding": 9}, {"data": [1]})
BAD_POSES: tuple[dict[str, Any], ...] = ({"position": Point(x=float("nan"))}, {"orientation": Quaternion(w=0.0)})


def picture(number: int, **change: Any) -> Image:
    """Make the picture of a second. `change` replaces fields, to make it malformed."""
    data = np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8).tobytes()
    fields: dict[str, Any] = {
        "header": header_message(TYPES, FIRST_NS + number * SECOND_NS, "camera_optical"),
        "height": HEIGHT,
        "width": WIDTH,
        "encoding": "rgb8",
        "step": 3 * WIDTH,
        "data": array.array("B", data),
    }
    return Image(**fields | change)


def sound(first: int, end: int, **change: Any) -> AudioChunk:
    """Make the sound of samples `first` to `end`, counted from second 0."""
    numbers = range(first // RATE_HZ, -(-end // RATE_HZ))
    seconds = [np.random.default_rng(number).integers(-3000, 3000, RATE_HZ, np.int16) for number in numbers]
    samples = np.concatenate(seconds)[first - numbers[0] * RATE_HZ :][: end - first]
    fields: dict[str, Any] = {
        "header": header_message(TYPES, FIRST_NS + first * SECOND_NS // RATE_HZ, "microphone"),
        "sample_rate_hz": RATE_HZ,
        "channels": 1,
        "encoding": AudioChunk.S16LE,
        "data": array.array("B", samples.tobytes()),
    }
    return AudioChunk(**fields | change)


def pose(number: int, **change: Any) -> PoseStamped:
    """Make the robot's pose at the start of a second."""
    parts: dict[str, Any] = {"position": Point(x=0.1 * number), "orientation": Quaternion(w=1.0)}
    header = header_message(TYPES, FIRST_NS + number * SECOND_NS, "map")
    return PoseStamped(header=header, pose=PoseMessage(**parts | change))


@dataclass
class Course:
    """What the node observed in one session.

    Attributes:
        first: the second at which the session began.
        steps: ("picture", n, n + 1), ("pose", n, n + 1) or ("sound", first sample, end), in the order of observing.
    """

    first: int
    steps: list[tuple[str, int, int]] = field(default_factory=list)

    def cut(self, pictures: int) -> None:
        """Remove the pictures from second `pictures` on: the node died before it observed them."""
        self.steps = [step for step in self.steps if step[0] != "picture" or step[1] < pictures]


def equals_course(memories: Path, name: str, course: Course) -> bool:
    """Whether a stored memory equals, bit for bit, that of one uninterrupted run over a course."""
    import torch

    from salmonn_node.messages import audio_chunk, image_frame, pose_from_message
    from salmonn_node.runtime.build import assemble, build_backend, load_model
    from salmonn_node.runtime.settings import Settings

    settings = Settings(memory_directory=memories, memory_name=name, threads=1)
    backend = build_backend(settings)
    try:
        stored, _ = backend.observer.memory.to_tensors()
        counts = backend.observer.status()
        again, _ = assemble(load_model(settings), settings, inline=True)
        for kind, begin, end in course.steps:
            if kind == "sound":
                chunk = audio_chunk(sound(begin, end), MICROPHONE)
                assert chunk is not None
                again.submit(chunk)
            else:
                again.submit(
                    image_frame(picture(begin), CAMERA) if kind == "picture" else pose_from_message(pose(begin))
                )
        wanted, _ = again.memory.to_tensors()
        status = again.status()
    finally:
        backend.close()
        backend.free()
    same_counts = (counts.frames, counts.poses, round(counts.audio_s, 6)) == (
        status.frames,
        status.poses,
        round(status.audio_s, 6),
    )
    return (
        same_counts
        and stored.keys() == wanted.keys()
        and all(torch.equal(stored[name], wanted[name]) for name in stored)
    )
