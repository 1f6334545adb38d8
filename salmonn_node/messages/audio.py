"""Microphone messages to float samples: our AudioChunk and both packages that are called audio_common_msgs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from salmonn_node.messages.base import MessageError, field_names, header_stamp_ns
from salmonn_node.stream.observations import AudioChunk

MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 384_000
MAX_CHANNELS = 64

S16LE, F32LE = 0, 1  # AudioChunk.encoding

# name -> (numpy type, full scale, zero). GStreamer's names, as ros-drivers' AudioInfo.sample_format gives them.
SAMPLE_FORMATS: dict[str, tuple[str, float, float]] = {
    "U8": ("u1", 128.0, 128.0),
    "S8": ("i1", 128.0, 0.0),
    "S16LE": ("<i2", 32768.0, 0.0),
    "S16BE": (">i2", 32768.0, 0.0),
    "S32LE": ("<i4", 2147483648.0, 0.0),
    "S32BE": (">i4", 2147483648.0, 0.0),
    "F32LE": ("<f4", 1.0, 0.0),
    "F32BE": (">f4", 1.0, 0.0),
}

# PortAudio's format code -> (field of mgonzs13's AudioData, sample format of its values)
PORTAUDIO_FIELDS = {
    1: ("float32_data", "F32LE"),
    2: ("int32_data", "S32LE"),
    8: ("int16_data", "S16LE"),
    16: ("int8_data", "S8"),
    32: ("uint8_data", "U8"),
}


@dataclass(frozen=True)
class AudioFormat:
    """What raw bytes mean: samples per second and channel, interleaved channels, a name in SAMPLE_FORMATS."""

    rate_hz: int
    channels: int
    sample_format: str


def audio_format(info: Any) -> AudioFormat:
    """Format from ros-drivers' audio_common_msgs/AudioInfo, which comes on a topic of its own.

    Raises MessageError ("audio_bad_format") when it is not plain PCM.
    """
    coding = str(info.coding_format).lower()
    if coding not in ("wave", "wav", "pcm", "raw"):
        raise MessageError("audio_bad_format", f"coding_format {coding[:20]!r} is not PCM (wave)")
    name = str(info.sample_format).upper()
    if name not in SAMPLE_FORMATS:
        raise MessageError("audio_bad_format", f"sample_format {name[:20]!r} is not one of {', '.join(SAMPLE_FORMATS)}")
    return AudioFormat(int(info.sample_rate), int(info.channels), name)


def audio_chunk(msg: Any, source: str, info: AudioFormat | None = None) -> AudioChunk:
    """Convert any supported message of microphone `source`; the family is told by the message's own fields.

    `info` is needed for ros-drivers' AudioDataStamped only. Raises MessageError: "stamp_zero", "audio_unstamped",
    "audio_no_info", "audio_bad_format", "audio_bad_rate", "audio_bad_channels", "audio_bad_size", "audio_empty",
    "audio_not_finite".
    """
    names = field_names(msg)
    if "header" not in names:
        raise MessageError("audio_unstamped", f"message with fields {names} has no header: use the stamped topic")
    if "encoding" in names:  # salmonn_interfaces/AudioChunk
        if msg.encoding not in (S16LE, F32LE):
            raise MessageError("audio_bad_format", f"encoding {msg.encoding} is neither S16LE (0) nor F32LE (1)")
        encoding = "S16LE" if msg.encoding == S16LE else "F32LE"
        return _chunk(msg, source, msg.data, AudioFormat(int(msg.sample_rate_hz), int(msg.channels), encoding))
    if "audio" not in names:
        raise MessageError("audio_bad_format", f"message with fields {names} is no known sound message")
    if "audio_data" in field_names(msg.audio):  # mgonzs13: the format travels along
        stated = msg.audio.info
        if stated.format not in PORTAUDIO_FIELDS:
            raise MessageError("audio_bad_format", f"format {stated.format} is not one of {list(PORTAUDIO_FIELDS)}")
        name, encoding = PORTAUDIO_FIELDS[stated.format]
        values = np.asarray(getattr(msg.audio.audio_data, name)).astype(SAMPLE_FORMATS[encoding][0], copy=False)
        return _chunk(msg, source, values.tobytes(), AudioFormat(int(stated.rate), int(stated.channels), encoding))
    if info is None:
        raise MessageError("audio_no_info", "AudioDataStamped came before any AudioInfo, its format is unknown")
    return _chunk(msg, source, msg.audio.data, info)


def _chunk(msg: Any, source: str, data: Any, sound: AudioFormat) -> AudioChunk:
    stamp = header_stamp_ns(msg)
    if not MIN_RATE_HZ <= sound.rate_hz <= MAX_RATE_HZ:
        raise MessageError("audio_bad_rate", f"rate {sound.rate_hz} Hz is not within {MIN_RATE_HZ}..{MAX_RATE_HZ}")
    if not 1 <= sound.channels <= MAX_CHANNELS:
        raise MessageError("audio_bad_channels", f"{sound.channels} channels are not within 1..{MAX_CHANNELS}")
    samples = _samples(data, sound)
    return AudioChunk(stamp, source, samples, sound.rate_hz, str(msg.header.frame_id))


def _samples(data: Any, sound: AudioFormat) -> npt.NDArray[np.float32]:
    """(n, channels) float32, full scale -1..1."""
    dtype, scale, zero = SAMPLE_FORMATS[sound.sample_format]
    frame_bytes = np.dtype(dtype).itemsize * sound.channels
    if len(data) == 0:
        raise MessageError("audio_empty", "data is empty")
    if len(data) % frame_bytes:
        text = f"data has {len(data)} bytes, no multiple of {frame_bytes} ({sound.channels} x {sound.sample_format})"
        raise MessageError("audio_bad_size", text)
    values = np.frombuffer(data, dtype).astype(np.float32)
    if scale != 1.0:
        values = (values - np.float32(zero)) / np.float32(scale)
    elif not np.isfinite(values).all():
        raise MessageError("audio_not_finite", f"{int((~np.isfinite(values)).sum())} samples are NaN or infinite")
    return values.reshape(-1, sound.channels)
