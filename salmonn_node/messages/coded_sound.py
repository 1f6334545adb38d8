"""Compressed sound (mp3, AAC, Opus, G.711) to samples, through PyAV, however messages cut the stream."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

from salmonn_node.messages.base import MessageError

# AudioInfo.coding_format -> FFmpeg's decoder, and whether its packets must be found in the stream of bytes.
DECODERS: dict[str, tuple[str, bool]] = {
    "mp3": ("mp3float", True),
    "mpeg": ("mp3float", True),
    "aac": ("aac", True),
    "opus": ("opus", False),
    "mulaw": ("pcm_mulaw", False),
    "alaw": ("pcm_alaw", False),
}


class SoundDecoder:
    """Decodes one microphone's stream, message by message; a decoder keeps a frame or two back.

    Args:
        coding: a key of DECODERS.
        rate_hz, channels: as AudioInfo says; they count where the coded stream does not say it itself.

    Raises:
        MessageError: "audio_bad_format" when PyAV is not installed or has no such decoder.
    """

    def __init__(self, coding: str, rate_hz: int, channels: int) -> None:
        name, self._parses = DECODERS[coding]
        self.coding = coding
        try:
            self._av: Any = importlib.import_module("av")
            self._context: Any = self._av.CodecContext.create(name, "r")
            if not self._parses:
                self._context.sample_rate = rate_hz
                self._context.layout = "mono" if channels == 1 else "stereo"
        except Exception as error:  # PyAV raises what FFmpeg says, of many types
            raise MessageError(f"audio_bad_format:{coding}", f"sound coded as {coding} needs PyAV: {error}") from error

    def decode(self, data: bytes) -> tuple[npt.NDArray[np.float32], int]:
        """((n, channels) float32, samples per second); n is 0 while a frame is not whole.

        Raises:
            MessageError: "audio_undecodable" when the bytes are no such sound.
        """
        pieces: list[npt.NDArray[np.float32]] = []
        rate_hz, fault = 0, ""
        for packet in self._context.parse(data) if self._parses else [self._av.Packet(data)]:
            try:
                for frame in self._context.decode(packet):
                    rate_hz = frame.sample_rate
                    pieces.append(_samples(frame))
            except self._av.FFmpegError as error:  # one damaged frame; the next one may be whole
                fault = str(error)
        if fault and not pieces:
            raise MessageError("audio_undecodable", f"the bytes are no {self.coding}: {fault}")
        return (np.concatenate(pieces) if pieces else np.zeros((0, 1), np.float32)), rate_hz


def _samples(frame: Any) -> npt.NDArray[np.float32]:
    values = frame.to_ndarray()
    channels = len(frame.layout.channels)
    values = values.T if frame.format.is_planar else values.reshape(-1, channels)
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max + 1)
