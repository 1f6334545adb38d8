"""A video file that stands for a bag: its frames and its sound as observations, decoded by PyAV (extra `video`)."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from pathlib import Path

import numpy as np
import numpy.typing as npt

from salmonn_node.evaluation.import_choice import VIDEO_START_NS
from salmonn_node.replay.account import Account
from salmonn_node.stream.observations import SECOND_NS, AudioChunk, Frame

CAMERA, MICROPHONE = "video", "sound"
# The sampler takes one frame a second; more than this many a second would be converted for nothing.
_FRAMES_HZ = 4
_SUFFIXES = {".mp4", ".mkv", ".webm", ".mov", ".avi"}


def is_video(path: Path) -> bool:
    """Whether a path names a video file, by its suffix."""
    return path.suffix.lower() in _SUFFIXES


def video_file(folder: Path, name: str) -> Path:
    """The file of the video called `name` (without its suffix) in a folder; raises ValueError when there is none."""
    found = next((p for suffix in sorted(_SUFFIXES) if (p := folder / (name + suffix)).is_file()), None)
    if found is None or Path(name).name != name:
        raise ValueError(f"{folder} holds no video {name!r}")
    return found


class VideoStream:
    """Observations of one video file, in order of time; the first frame's stamp is `VIDEO_START_NS`.

    Attributes:
        duration_s: length of the video in seconds, 0 where the container does not say.
        report: frames that the container promises, and those that could be decoded.
        has_audio: whether there is sound; without it the replay goes on with vision alone.

    Raises:
        RuntimeError: PyAV is not installed.
        ValueError: the file cannot be opened or holds no video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as container:
            if not container.streams.video:
                raise ValueError(f"{path} holds no video stream")
            self.has_audio = bool(container.streams.audio)
            self.duration_s = (container.duration or 0) / 1_000_000
            self._promised = container.streams.video[0].frames
        self.report = Account()
        if not self.has_audio:
            self.report.notes.append("no sound in this video: only pictures are replayed")

    def close(self) -> None:
        """Nothing stays open between two readings."""

    def __iter__(self) -> Iterator[tuple[int, Frame | AudioChunk]]:
        """Pairs of a stamp (ns) and a frame (RGB) or a piece of sound, in order of stamps."""
        self.report.expect([(CAMERA, self._promised)] if self._promised else [])
        streams: list[Iterator[tuple[int, Frame | AudioChunk]]] = [self._frames()]
        if self.has_audio:
            streams.append(self._sound())
        yield from merge(*streams, key=lambda item: item[0])
        self.report.complete = True

    def _open(self):
        try:
            import av
        except ImportError:
            raise RuntimeError("reading video files needs PyAV: pip install 'salmonn_node[video]'") from None
        try:
            return av.open(str(self.path))
        except (av.FFmpegError, OSError) as error:
            raise ValueError(f"cannot open {self.path} as a video: {error}") from None

    def _frames(self) -> Iterator[tuple[int, Frame]]:
        next_due = 0.0
        with self._open() as container:
            container.streams.video[0].thread_type = "AUTO"
            for picture in container.decode(video=0):
                if self._promised:
                    self.report.topics[CAMERA].read += 1
                if picture.time is None or picture.time + 1e-6 < next_due:
                    continue
                next_due = picture.time + 1.0 / _FRAMES_HZ
                stamp_ns = VIDEO_START_NS + round(picture.time * SECOND_NS)
                if self._promised:
                    self.report.topics[CAMERA].used += 1
                yield stamp_ns, Frame(stamp_ns, CAMERA, picture.to_ndarray(format="rgb24"), CAMERA)

    def _sound(self) -> Iterator[tuple[int, AudioChunk]]:
        sent, first_ns = 0, None
        with self._open() as container:
            for piece in container.decode(audio=0):
                if first_ns is None:
                    first_ns = VIDEO_START_NS + round((piece.time or 0.0) * SECOND_NS)
                samples = _float_samples(piece)
                # Counting samples, not packet stamps, keeps the sound gapless: containers round their stamps.
                start_ns = first_ns + sent * SECOND_NS // piece.sample_rate
                sent += len(samples)
                yield start_ns, AudioChunk(start_ns, MICROPHONE, samples, piece.sample_rate, MICROPHONE)


def _float_samples(piece) -> npt.NDArray[np.float32]:
    """(n, channels) float32 in -1..1 of a decoded piece of sound, planar or packed."""
    data = piece.to_ndarray()
    channels = len(piece.layout.channels)
    samples = data.T if piece.format.is_planar else data.reshape(-1, channels)
    if samples.dtype.kind == "f":
        return np.ascontiguousarray(samples, dtype=np.float32)
    info = np.iinfo(samples.dtype)
    middle = 0 if info.min < 0 else (info.max + 1) // 2
    return ((samples.astype(np.float64) - middle) / (info.max - middle + 1)).astype(np.float32)
