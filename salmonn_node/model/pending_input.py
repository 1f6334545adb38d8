"""Pending input: frames and sound that do not yet fill a temporal patch or an audio window."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from salmonn_node.model.timeline import Timeline
from salmonn_node.stream.observations import SAMPLE_RATE_HZ, SECOND_NS, Interval

# Name of the state part under which it is saved with a memory.
PART = "ingest"


@dataclass
class WaitingFrame:
    """A normalised frame (3, H, W) that waits for the second frame of its patch."""

    stamp_ns: int
    pixels: Tensor
    pose_id: int
    frame_id: str = ""


@dataclass
class WaitingSound:
    """Samples of a microphone that wait for a complete window."""

    start_ns: int
    samples: npt.NDArray[np.float32]
    frame_id: str = ""

    @property
    def end_ns(self) -> int:
        """Stamp just after the last sample."""
        return self.start_ns + round(len(self.samples) * SECOND_NS / SAMPLE_RATE_HZ)


class PendingInput:
    """Waiting frames and sound of a stream, and the timeline. Saved with the memory as its part `ingest`.

    Attributes:
        timeline: positions of blocks in the prompt.
        cameras: names of the cameras seen, in order of appearance.
        frames, sounds: waiting input by source: at most one frame per camera, less than a window per microphone.
        lock: held while memory and timeline change together.
    """

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.cameras: list[str] = []
        self.frames: dict[str, WaitingFrame] = {}
        self.sounds: dict[str, WaitingSound] = {}
        self.lock = threading.RLock()

    def forget(self, interval: Interval) -> None:
        """Drop the waiting frames and sound of an interval."""
        with self.lock:
            for name, frame in list(self.frames.items()):
                if interval.start_ns <= frame.stamp_ns <= interval.end_ns:
                    del self.frames[name]
            for name, sound in list(self.sounds.items()):
                if Interval(sound.start_ns, sound.end_ns).overlaps(interval):
                    del self.sounds[name]

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors for safetensors and JSON values that restore the state bit for bit."""
        with self.lock:
            tensors: dict[str, Tensor] = {}
            for name, frame in self.frames.items():
                tensors[f"frame.{name}"] = frame.pixels
            for name, sound in self.sounds.items():
                tensors[f"sound.{name}"] = torch.from_numpy(sound.samples.copy())
            return tensors, {
                "cameras": list(self.cameras),
                "timeline": self.timeline.to_dict(),
                "frames": {name: [w.stamp_ns, w.pose_id, w.frame_id] for name, w in self.frames.items()},
                "sounds": {name: [w.start_ns, w.frame_id] for name, w in self.sounds.items()},
            }

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Restore the state from `to_tensors`."""
        self.cameras = list(meta["cameras"])
        self.timeline.restore(meta["timeline"])
        self.frames = {
            name: WaitingFrame(stamp, tensors[f"frame.{name}"], pose, frame_id)
            for name, (stamp, pose, frame_id) in meta["frames"].items()
        }
        self.sounds = {
            name: WaitingSound(start, tensors[f"sound.{name}"].numpy().copy(), frame_id)
            for name, (start, frame_id) in meta["sounds"].items()
        }
