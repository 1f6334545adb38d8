"""Microphone messages to float samples: our AudioChunk and both packages that are called audio_common_msgs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from salmonn_node.messages.base import MessageError, field_names, header_stamp_ns
from salmonn_node.messages.coded_sound import DECODERS, SoundDecoder
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
    "U16LE": ("<u2", 32768.0, 32768.0),
    "U16BE": (">u2", 32768.0, 32768.0),
    "S24LE": ("<i4", 2147483648.0, 0.0),
    "S24BE": (">i4", 2147483648.0, 0.0),
    "S24_32LE": ("<i4", 8388608.0, 0.0),
    "S24_32BE": (">i4", 8388608.0, 0.0),
    "S32LE": ("<i4", 2147483648.0, 0.0),
    "S32BE": (">i4", 2147483648.0, 0.0),
    "F32LE": ("<f4", 1.0, 0.0),
    "F32BE": (">f4", 1.0, 0.0),
    "F64LE": ("<f8", 1.0, 0.0),
    "F64BE": (">f8", 1.0, 0.0),
}
PACKED_24 = ("S24LE", "S24BE")  # three bytes a sample; they become the upper three of four

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
    """What a microphone's bytes mean.

    Attributes:
        rate_hz: samples per second and channel.
        channels: interleaved.
        sample_format: a name in SAMPLE_FORMATS.
        coding: "wave" for plain samples, else a key of DECODERS.
        problem: (reason, text) when such sound cannot be read; each chunk is refused with it.
        decoder: of coded sound; it keeps what is left of the last message.
    """

    rate_hz: int
    channels: int
    sample_format: str
    coding: str = "wave"
    problem: tuple[str, str] | None = None
    decoder: SoundDecoder | None = field(default=None, compare=False, repr=False)


def audio_format(info: Any, known: AudioFormat | None = None) -> AudioFormat:
    """Format from ros-drivers' audio_common_msgs/AudioInfo, which comes on a topic of its own.

    `known` is what the last AudioInfo gave: when nothing has changed, it goes on. What cannot be read is a format with
    a `problem` that names it.
    """
    coding = str(info.coding_format).lower()
    coding = "wave" if coding in ("", "wave", "wav", "pcm", "raw") else coding
    name = str(info.sample_format).upper()
    stated = AudioFormat(int(info.sample_rate), int(info.channels), name, coding)
    if known is not None and (known.rate_hz, known.channels, known.sample_format, known.coding) == (
        stated.rate_hz, stated.channels, name, coding,
    ):  # fmt: skip
        return known
    if coding == "wave":
        if name in SAMPLE_FORMATS:
            return stated
        text = f"sample_format {name[:20]!r} is not one of {', '.join(SAMPLE_FORMATS)}"
        return AudioFormat(stated.rate_hz, stated.channels, name, coding, (_bad_format(name), text))
    if coding not in DECODERS:
        text = f"coding_format {coding[:20]!r} is not one of wave, {', '.join(DECODERS)}"
        return AudioFormat(stated.rate_hz, stated.channels, name, coding, (_bad_format(coding), text))
    try:
        decoder = SoundDecoder(coding, stated.rate_hz, stated.channels)
    except MessageError as error:
        return AudioFormat(stated.rate_hz, stated.channels, name, coding, (error.reason, str(error)))
    return AudioFormat(stated.rate_hz, stated.channels, name, coding, decoder=decoder)


def _bad_format(name: str) -> str:
    """A reason that names what was not understood; names come from messages, so only plain characters stay."""
    return f"audio_bad_format:{re.sub(r'[^A-Za-z0-9_.-]', '', name)[:20]}"


def audio_chunk(msg: Any, source: str, info: AudioFormat | None = None) -> AudioChunk | None:
    """Convert any supported message of microphone `source`; the family is told by the message's own fields.

    `info` is needed for ros-drivers' AudioDataStamped only. None: coded sound whose frame is not whole yet.

    Raises:
        MessageError: "stamp_zero", "audio_unstamped", "audio_no_info", "audio_bad_format" (with a name behind a colon
            where AudioInfo gives one), "audio_undecodable", "audio_bad_rate", "audio_bad_channels", "audio_bad_size",
            "audio_empty", "audio_not_finite".
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
    if info.problem is not None:
        raise MessageError(*info.problem)
    if info.decoder is not None:
        samples, rate_hz = info.decoder.decode(bytes(msg.audio.data))
        if not len(samples):
            return None
        return AudioChunk(header_stamp_ns(msg), source, samples, rate_hz, str(msg.header.frame_id))
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
    packed = sound.sample_format in PACKED_24
    frame_bytes = (3 if packed else np.dtype(dtype).itemsize) * sound.channels
    if len(data) == 0:
        raise MessageError("audio_empty", "data is empty")
    if len(data) % frame_bytes:
        text = f"data has {len(data)} bytes, no multiple of {frame_bytes} ({sound.channels} x {sound.sample_format})"
        raise MessageError("audio_bad_size", text)
    if packed:
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, slice(1, 4) if dtype == "<i4" else slice(0, 3)] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        data = wide.tobytes()
    values = np.frombuffer(data, dtype).astype(np.float32)
    if scale != 1.0:
        values = (values - np.float32(zero)) / np.float32(scale)
    elif not np.isfinite(values).all():
        raise MessageError("audio_not_finite", f"{int((~np.isfinite(values)).sum())} samples are NaN or infinite")
    return values.reshape(-1, sound.channels)
