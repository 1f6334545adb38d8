"""A small bag from the photographs that scikit-image ships: a slow pan over each, with a clock that ticks."""

from __future__ import annotations

import importlib
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from salmonn_node.evaluation.questions import EvidenceInterval, Expected, QuestionRecord
from salmonn_node.messages.bag_writer import BagWriter
from salmonn_node.stream.observations import SECOND_NS, AudioChunk, Frame, Pose

START_NS = 1_767_225_600 * SECOND_NS  # 2026-01-01 00:00 UTC
WIDTH, HEIGHT = 640, 360
FOCAL_PX = 420.0
SOUND_RATE_HZ = 24_000
CHUNK_S = 0.02
FRAMES_PER_S, POSES_PER_S = 8, 20
PICTURES = ("astronaut", "cat", "coffee", "rocket", "camera")
SECONDS_EACH = 4
SECONDS = SECONDS_EACH * len(PICTURES)
SPEED_M_S = 0.25

Image = npt.NDArray[np.uint8]


def write_photographs(path: Path) -> None:
    """Write the bag: 20 s of camera, microphone and odometry, about 6 MB, the same data each time.

    Raises:
        ModuleNotFoundError: scikit-image is not installed (extra `test`).
    """
    data = importlib.import_module("skimage.data")
    pictures = [_as_rgb(getattr(data, name)()) for name in PICTURES]
    ticks = _ticks()
    rates = (("pose", POSES_PER_S), ("frame", FRAMES_PER_S), ("sound", round(1 / CHUNK_S)))
    with BagWriter(path, jpeg_quality=80) as bag:
        for t, kind in sorted((i / rate, kind) for kind, rate in rates for i in range(SECONDS * rate)):
            stamp_ns = START_NS + round(t * SECOND_NS)
            if kind == "pose":
                place = np.array([SPEED_M_S * t, 0.0, 0.0])
                bag.pose(Pose(stamp_ns, "map", place, np.array([0.0, 0.0, 0.0, 1.0]), np.diag([0.02] * 6)))
            elif kind == "frame":
                shown, share = divmod(t / SECONDS_EACH, 1.0)
                bag.frame(Frame(stamp_ns, "front", _pan(pictures[int(shown)], share), "front_camera_optical_frame"))
                bag.camera_info(stamp_ns, "front", "front_camera_optical_frame", (WIDTH, HEIGHT), FOCAL_PX)
            else:
                begin = round(t * SOUND_RATE_HZ)
                samples = ticks[begin : begin + round(CHUNK_S * SOUND_RATE_HZ)]
                bag.sound(AudioChunk(stamp_ns, "mic", samples, SOUND_RATE_HZ, "mic_link"))


def photograph_questions() -> list[QuestionRecord]:
    """What can be asked about them, all at the end."""
    end_ns = START_NS + SECONDS * SECOND_NS

    def shown(name: str) -> EvidenceInterval:
        begin_ns = START_NS + PICTURES.index(name) * SECONDS_EACH * SECOND_NS
        return EvidenceInterval(start_ns=begin_ns, end_ns=begin_ns + SECONDS_EACH * SECOND_NS)

    cat, coffee, last = shown("cat"), shown("coffee"), shown("camera")
    when = Expected(event_start_ns=coffee.start_ns, event_end_ns=coffee.end_ns)
    where = Expected(position_m=(SPEED_M_S * 2.5 * SECONDS_EACH, 0.0, 0.0))
    choices = ("a rocket", "a cat", "a photographer")
    return [
        QuestionRecord(
            id="photo-0", ask_ns=end_ns, text="Was there a cat?", kind="existence", answer_type="BINARY",
            expected=Expected(binary=True, text="yes"), evidence=(cat,),
        ),
        QuestionRecord(
            id="photo-1", ask_ns=end_ns, text="When did you see the cup of coffee?", kind="when_last",
            answer_type="TIME", expected=when, evidence=(coffee,),
        ),
        QuestionRecord(
            id="photo-2", ask_ns=end_ns, text="Where were you when you saw the cup of coffee?", kind="where_robot",
            answer_type="POSITION", expected=where, evidence=(coffee,),
        ),
        QuestionRecord(
            id="photo-3", ask_ns=end_ns, text="What was in the last picture?", kind="order", answer_type="CHOICE",
            choices=choices, expected=Expected(choice_index=2, text=choices[2]), evidence=(last,),
        ),
    ]  # fmt: skip


def _ticks() -> npt.NDArray[np.float32]:
    """(n, 1) float32: a tick each second."""
    wave = np.zeros((SECONDS * SOUND_RATE_HZ, 1), np.float32)
    tick = 0.5 * np.hanning(480) * np.sin(2 * np.pi * 1800 * np.arange(480) / SOUND_RATE_HZ)
    for second in range(SECONDS):
        wave[second * SOUND_RATE_HZ : second * SOUND_RATE_HZ + len(tick), 0] = tick
    return wave


def _as_rgb(picture: npt.NDArray[np.uint8]) -> Image:
    return np.repeat(picture[:, :, None], 3, axis=2) if picture.ndim == 2 else np.ascontiguousarray(picture[:, :, :3])


def _pan(picture: Image, share: float) -> Image:
    """A 16:9 window that moves over the picture from one side to the other."""
    high, wide = picture.shape[:2]
    width = min(wide, round(0.85 * high * WIDTH / HEIGHT), round(0.85 * wide))
    height = round(width * HEIGHT / WIDTH)
    left, top = round(share * (wide - width)), round(share * (high - height))
    window = picture[top : top + height, left : left + width]
    return cv2.resize(window, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA).astype(np.uint8)
