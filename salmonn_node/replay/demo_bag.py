"""Two small bags to try the node with: a drawn and voiced drive past coloured objects, and a walk of photographs."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from salmonn_node.messages.bag_writer import BagWriter
from salmonn_node.stream.observations import SECOND_NS, AudioChunk, Frame, Pose

START_NS = 1_767_225_600 * SECOND_NS  # 2026-01-01 00:00 UTC
WIDTH, HEIGHT = 640, 360
FOCAL_PX = 420.0
CAMERA_HEIGHT_M = 0.9
RATE_HZ = 24_000
CHUNK_S = 0.02
FRAMES_PER_S = 10
POSES_PER_S = 20
DURATION_S = 40.0

# What stands along the drive: name, RGB, x and y of its centre in the map (m), width and height (m).
OBJECTS = (
    ("red box", (205, 40, 40), 4.0, 1.6, 0.9, 0.9),
    ("blue door", (45, 80, 200), 8.0, -2.2, 1.0, 2.1),
    ("green plant", (40, 150, 60), 12.0, 1.8, 0.7, 1.5),
    ("yellow chair", (235, 200, 50), 16.0, -1.5, 0.7, 1.0),
    ("orange barrel", (240, 130, 30), 20.0, 1.5, 0.8, 1.2),
    ("white fridge", (240, 240, 245), 24.0, -1.9, 0.9, 1.9),
)
# What is heard: name, first and last second.
SOUNDS = (("doorbell", 9.0, 10.5), ("alarm", 22.0, 25.0), ("knocking", 33.0, 34.5))

Image = npt.NDArray[np.uint8]


def write_scene(path: Path) -> None:
    """Write the drawn drive: 40 s of camera, microphone and odometry, about 6 MB, the same bytes of data each time."""
    _write(path, lambda t: draw(*_place(t)), _sounds(DURATION_S), DURATION_S, _place)


def write_photographs(path: Path) -> None:
    """Write a slow pan over photographs that scikit-image ships, four seconds each, with a ticking clock.

    Raises:
        ModuleNotFoundError: scikit-image is not installed (extra `test`).
    """
    data = importlib.import_module("skimage.data")
    pictures = [_as_rgb(getattr(data, name)()) for name in ("astronaut", "cat", "coffee", "rocket", "camera")]
    seconds = 4.0 * len(pictures)

    def picture(t: float) -> Image:
        shown = pictures[min(int(t / 4.0), len(pictures) - 1)]
        return _pan(shown, (t % 4.0) / 4.0)

    ticks = np.zeros((round(seconds * RATE_HZ), 1), np.float32)
    for second in range(int(seconds)):
        at = second * RATE_HZ
        ticks[at : at + 480, 0] = 0.5 * np.hanning(480) * np.sin(2 * np.pi * 1800 * np.arange(480) / RATE_HZ)
    _write(path, picture, ticks, seconds, lambda t: (0.25 * t, 0.0, 0.0))


def _write(
    path: Path,
    picture: Callable[[float], Image],
    sound: npt.NDArray[np.float32],
    seconds: float,
    place: Callable[[float], tuple[float, float, float]],
) -> None:
    with BagWriter(path, jpeg_quality=80) as bag:
        for t, kind in _schedule(seconds):
            stamp_ns = START_NS + round(t * SECOND_NS)
            if kind == "pose":
                bag.pose(_pose(stamp_ns, *place(t)))
            elif kind == "frame":
                bag.frame(Frame(stamp_ns, "camera", picture(t), "camera_optical_frame"))
                bag.camera_info(stamp_ns, "camera", "camera_optical_frame", (WIDTH, HEIGHT), FOCAL_PX)
            else:
                begin = round(t * RATE_HZ)
                samples = sound[begin : begin + round(CHUNK_S * RATE_HZ)]
                bag.sound(AudioChunk(stamp_ns, "microphone", samples, RATE_HZ, "microphone_frame"))


def _schedule(seconds: float) -> Iterator[tuple[float, str]]:
    """Times and kinds of all messages, in order."""
    rates = (("pose", POSES_PER_S), ("frame", FRAMES_PER_S), ("sound", round(1 / CHUNK_S)))
    return iter(sorted((i / rate, kind) for kind, rate in rates for i in range(round(seconds * rate))))


def _place(t: float) -> tuple[float, float, float]:
    """Where the robot is: x, y (m) and yaw (rad); out along the corridor, and a look around at the end."""
    x = min(0.7 * t, 21.0)
    turn = max(0.0, t - 30.0) / 10.0
    return x, 0.15 * math.sin(0.5 * t), 0.12 * math.sin(0.7 * t) + 0.5 * turn


def _pose(stamp_ns: int, x: float, y: float, yaw: float) -> Pose:
    orientation = np.array([0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)])
    covariance = np.diag([0.02, 0.02, 1e-6, 1e-6, 1e-6, 0.01])
    return Pose(stamp_ns, "map", np.array([x, y, 0.0]), orientation, covariance)


def draw(x: float, y: float, yaw: float) -> Image:
    """(360, 640, 3) uint8 RGB of the corridor from the robot's camera."""
    image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    image[: HEIGHT // 2] = (214, 208, 196)
    image[HEIGHT // 2 :] = (132, 118, 104)
    for line in np.arange(math.floor(x), x + 30.0, 1.0):  # floor tiles give a sense of motion
        _polygon(
            image, x, y, yaw, [(line, -3, 0), (line + 0.06, -3, 0), (line + 0.06, 3, 0), (line, 3, 0)], (96, 84, 74)
        )
    for side in (-3.0, 3.0):
        _polygon(
            image,
            x,
            y,
            yaw,
            [(x + 0.6, side, 0), (33, side, 0), (33, side, 2.6), (x + 0.6, side, 2.6)],
            (188, 190, 180),
        )
    _polygon(image, x, y, yaw, [(33, -3, 0), (33, 3, 0), (33, 3, 2.6), (33, -3, 2.6)], (160, 164, 170))
    for _, colour, ox, oy, wide, high in sorted(OBJECTS, key=lambda item: -math.hypot(item[2] - x, item[3] - y)):
        half = wide / 2
        shade = tuple(round(0.72 * c) for c in colour)
        side = oy - half if oy > y else oy + half
        _polygon(
            image,
            x,
            y,
            yaw,
            [(ox - half, side, 0), (ox + half, side, 0), (ox + half, side, high), (ox - half, side, high)],
            shade,
        )
        front = [
            (ox - half, oy - half, 0),
            (ox - half, oy + half, 0),
            (ox - half, oy + half, high),
            (ox - half, oy - half, high),
        ]
        _polygon(image, x, y, yaw, front, colour)
    return image


def _polygon(
    image: Image, x: float, y: float, yaw: float, corners: list[tuple[float, float, float]], colour: tuple[int, ...]
) -> None:
    """Fill a planar polygon of the map, cut at a near plane, seen from the robot at x, y, yaw."""
    points = np.array(corners, np.float64) - (x, y, CAMERA_HEIGHT_M)
    cos, sin = math.cos(yaw), math.sin(yaw)
    depth, left = cos * points[:, 0] + sin * points[:, 1], -sin * points[:, 0] + cos * points[:, 1]
    camera = np.stack([-left, -points[:, 2], depth], axis=1)  # optical frame: right, down, forward
    cut = _cut_near(camera, 0.2)
    if len(cut) < 3:
        return
    u = WIDTH / 2 + FOCAL_PX * cut[:, 0] / cut[:, 2]
    v = HEIGHT / 2 + FOCAL_PX * cut[:, 1] / cut[:, 2]
    pixels = np.clip(np.stack([u, v], axis=1), -8000, 8000)
    cv2.fillPoly(image, [np.rint(pixels * 8).astype(np.int32)], colour, lineType=cv2.LINE_AA, shift=3)


def _cut_near(points: npt.NDArray[np.float64], near_m: float) -> npt.NDArray[np.float64]:
    """The part of a polygon (n, 3) with z >= near_m (Sutherland and Hodgman 1974, one plane)."""
    kept: list[npt.NDArray[np.float64]] = []
    for start, end in zip(points, np.roll(points, -1, axis=0), strict=True):
        if start[2] >= near_m:
            kept.append(start)
        if (start[2] >= near_m) != (end[2] >= near_m):
            share = (near_m - start[2]) / (end[2] - start[2])
            kept.append(start + share * (end - start))
    return np.array(kept).reshape(-1, 3)


def _sounds(seconds: float) -> npt.NDArray[np.float32]:
    """(n, 1) float32: a quiet room with the three sounds of SOUNDS."""
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    wave = 0.004 * np.random.default_rng(7).standard_normal(len(t))
    for name, begin, end in SOUNDS:
        inside = (t >= begin) & (t < end)
        s = t[inside] - begin
        if name == "doorbell":
            tone = np.where(s < 0.6, 660.0, 550.0)
            wave[inside] += 0.4 * np.exp(-3 * (s % 0.6)) * np.sin(2 * np.pi * tone * s)
        elif name == "alarm":
            wave[inside] += 0.3 * np.sin(2 * np.pi * (900 + 300 * np.sign(np.sin(2 * np.pi * 2 * s))) * s)
        else:
            wave[inside] += 0.6 * np.exp(-60 * (s % 0.3)) * np.sin(2 * np.pi * 180 * s)
    return wave.astype(np.float32)[:, None]


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
