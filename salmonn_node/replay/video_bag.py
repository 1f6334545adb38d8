"""A video file, with its own sound or that of a WAV file, as a rosbag2 that any node can be fed with."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from heapq import merge
from pathlib import Path

import numpy as np

from salmonn_node.evaluation.import_choice import VIDEO_START_NS
from salmonn_node.messages.bag_writer import BagWriter
from salmonn_node.replay.video_stream import MICROPHONE, VideoStream
from salmonn_node.stream.observations import SECOND_NS, AudioChunk, Frame

# Pieces as long as a driver sends them.
_CHUNK_S = 0.1


def write_video(video: Path, bag: Path, wav: Path | None = None) -> None:
    """Write the frames (four a second) and the sound of `video` to `bag`; `wav` replaces the sound.

    Raises:
        ValueError: the video cannot be read, or the WAV file is not 16-bit PCM.
        RuntimeError: PyAV is not installed.
    """
    stream = VideoStream(video)
    sound = wav_chunks(wav) if wav else iter(())
    own = (o for _, o in stream if wav is None or isinstance(o, Frame))
    with BagWriter(bag) as writer:
        for observation in merge(own, sound, key=lambda o: o.stamp_ns):
            if isinstance(observation, Frame):
                writer.frame(observation)
            else:
                writer.sound(observation)


def wav_chunks(path: Path) -> Iterator[AudioChunk]:
    """The sound of a 16-bit PCM WAV file in pieces of a tenth of a second, from `VIDEO_START_NS` on.

    Raises:
        ValueError: another format.
    """
    try:
        file = wave.open(str(path), "rb")  # noqa: SIM115 - closed below, the error is to name the file
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{path}: cannot be read as a WAV file: {error}") from None
    with file:
        if file.getsampwidth() != 2:
            raise ValueError(f"{path}: {8 * file.getsampwidth()}-bit samples, expected 16-bit")
        rate, channels, sent = file.getframerate(), file.getnchannels(), 0
        while raw := file.readframes(max(1, round(rate * _CHUNK_S))):
            samples = np.frombuffer(raw, "<i2").reshape(-1, channels).astype(np.float32) / np.float32(32768)
            yield AudioChunk(VIDEO_START_NS + sent * SECOND_NS // rate, MICROPHONE, samples, rate, MICROPHONE)
            sent += len(samples)
