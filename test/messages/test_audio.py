"""Sound of our message and of both packages called audio_common_msgs; what is not whole PCM is refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from salmonn_node.messages import AudioFormat, MessageError, audio_chunk, audio_format
from salmonn_node.messages.audio import PACKED_24, SAMPLE_FORMATS
from salmonn_node.messages.base import header_message

SINE = np.sin(np.arange(320) / 16_000 * 440 * 2 * np.pi).astype(np.float32) * 0.5
STEREO = np.stack([SINE, -SINE], axis=1)


class Message(SimpleNamespace):
    """Stands for a message of a package that is on no package index: the same fields, the same introspection."""

    def get_fields_and_field_types(self) -> dict[str, str]:
        return {name: "" for name in vars(self)}


def chunk_message(types, data: bytes, **change):
    fields = {
        "header": header_message(types, 7_000_000_000, "mic"),
        "sample_rate_hz": 16_000,
        "channels": 2,
        "encoding": 1,
        "data": types.data(data),
    }
    return types.new("salmonn_interfaces/msg/AudioChunk", **(fields | change))


def quantised(values: np.ndarray, name: str) -> np.ndarray:
    dtype, scale, zero = SAMPLE_FORMATS[name]
    if name in PACKED_24:
        wide = np.round(values.astype(np.float64) * (2**31 - 256)).astype(dtype).reshape(-1)
        return wide.view(np.uint8).reshape(-1, 4)[:, slice(1, 4) if name == "S24LE" else slice(0, 3)]
    return values.astype(dtype) if scale == 1 else np.round(values * (scale - 1) + zero).astype(dtype)


def test_audio_chunk_float(types):
    chunk = audio_chunk(chunk_message(types, STEREO.tobytes()), "mic")
    assert (chunk.stamp_ns, chunk.source, chunk.rate_hz, chunk.frame_id) == (7_000_000_000, "mic", 16_000, "mic")
    np.testing.assert_array_equal(chunk.samples, STEREO)


def test_audio_chunk_int16(types):
    data = quantised(STEREO, "S16LE")
    chunk = audio_chunk(chunk_message(types, data.tobytes(), encoding=0), "mic")
    np.testing.assert_allclose(chunk.samples, STEREO, atol=1e-4)
    assert chunk.samples.dtype == np.float32


@pytest.mark.parametrize(
    ("data", "change", "reason"),
    [
        (STEREO.tobytes()[:-1], {}, "audio_bad_size"),
        (STEREO.tobytes()[:-4], {}, "audio_bad_size"),
        (b"", {}, "audio_empty"),
        (STEREO.tobytes(), {"sample_rate_hz": 0}, "audio_bad_rate"),
        (STEREO.tobytes(), {"sample_rate_hz": 2**32 - 1}, "audio_bad_rate"),
        (STEREO.tobytes(), {"channels": 0}, "audio_bad_channels"),
        (STEREO.tobytes(), {"channels": 255}, "audio_bad_channels"),
        (STEREO.tobytes(), {"encoding": 9}, "audio_bad_format"),
        (np.float32([0, np.nan]).tobytes(), {}, "audio_not_finite"),
        (np.float32([0, -np.inf]).tobytes(), {}, "audio_not_finite"),
    ],
)
def test_bad_chunks_are_refused_by_name(types, data, change, reason):
    with pytest.raises(MessageError) as error:
        audio_chunk(chunk_message(types, data, **change), "mic")
    assert error.value.reason == reason


@pytest.mark.parametrize("name", sorted(SAMPLE_FORMATS))
def test_ros_drivers_family(types, name):
    info = Message(channels=2, sample_rate=44_100, sample_format=name, bitrate=0, coding_format="wave")
    sound = audio_format(info)
    assert sound == AudioFormat(44_100, 2, name)
    data = types.data(quantised(STEREO, name).tobytes())
    msg = Message(header=header_message(types, 7, "mic"), audio=Message(data=data))
    np.testing.assert_allclose(audio_chunk(msg, "mic", sound).samples, STEREO, atol=0.012)
    with pytest.raises(MessageError) as error:
        audio_chunk(msg, "mic")
    assert error.value.reason == "audio_no_info"


def info_message(coding: str, name: str = "S16LE", rate: int = 16_000) -> Message:
    return Message(channels=1, sample_rate=rate, sample_format=name, bitrate=0, coding_format=coding)


def test_what_is_not_understood_is_named_with_each_chunk(types):
    for info, named in ((info_message("speex"), "speex"), (info_message("wave", "S20LE"), "S20LE")):
        msg = Message(header=header_message(types, 7, "mic"), audio=Message(data=types.data(b"1234")))
        with pytest.raises(MessageError, match=named) as error:
            audio_chunk(msg, "mic", audio_format(info))
        assert error.value.reason == f"audio_bad_format:{named}"
    with pytest.raises(MessageError, match="no header"):
        audio_chunk(Message(data=b"\0\0"), "mic")


@pytest.mark.parametrize(("coding", "codec"), [("mp3", "libmp3lame"), ("aac", "aac")])
def test_coded_sound_is_decoded_however_it_was_cut(types, coding, codec):
    """audio_common's default coding is mp3; GStreamer cuts the stream where its buffers end."""
    import io

    av = pytest.importorskip("av")
    tone = (0.5 * np.sin(np.arange(160_000) / 16_000 * 440 * 2 * np.pi)).astype(np.float32)
    file = io.BytesIO()
    plain = {"id3v2_version": "0", "write_xing": "0"}  # frames alone, as a live encoder gives them
    with av.open(
        file, "w", format={"aac": "adts"}.get(coding, coding), options=plain if coding == "mp3" else {}
    ) as out:
        stream = out.add_stream(codec, rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray((tone * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)
    data, first = file.getvalue(), None
    for size in (200, 417, len(data)):
        sound, pieces = audio_format(info_message(coding)), []
        for at in range(0, len(data), size):
            header = header_message(types, 7 + at, "mic")
            msg = Message(header=header, audio=Message(data=types.data(data[at : at + size])))
            chunk = audio_chunk(msg, "mic", sound)
            assert audio_format(info_message(coding), sound) is sound, "the same AudioInfo again changes nothing"
            if chunk is not None:
                assert chunk.rate_hz == 16_000
                pieces.append(chunk.samples[:, 0])
        heard = np.concatenate(pieces)
        assert len(heard) > 0.85 * len(tone)
        spectrum = np.abs(np.fft.rfft(heard[4_000:20_000]))
        assert np.argmax(spectrum) == pytest.approx(440, abs=2)
        first = heard if first is None else first
        num = min(len(first), len(heard))
        np.testing.assert_array_equal(first[:num], heard[:num])


def test_g711_and_bytes_that_are_no_sound(types):
    mulaw = audio_format(info_message("mulaw", rate=8_000))
    msg = Message(header=header_message(types, 7, "mic"), audio=Message(data=types.data(bytes(range(160)))))
    assert audio_chunk(msg, "mic", mulaw).samples.shape == (160, 1)
    noise = Message(header=header_message(types, 7, "mic"), audio=Message(data=types.data(bytes(500))))
    assert audio_chunk(noise, "mic", audio_format(info_message("mp3"))) is None


@pytest.mark.parametrize(
    ("code", "field", "name"),
    [
        (1, "float32_data", "F32LE"),
        (2, "int32_data", "S32LE"),
        (8, "int16_data", "S16LE"),
        (16, "int8_data", "S8"),
        (32, "uint8_data", "U8"),
    ],
)
def test_mgonzs13_family(types, code, field, name):
    empty = {f: [] for f in ("float32_data", "int32_data", "int16_data", "int8_data", "uint8_data")}
    data = Message(**(empty | {field: quantised(STEREO, name).reshape(-1).tolist()}))
    info = Message(format=code, channels=2, rate=48_000, chunk=320)
    msg = Message(header=header_message(types, 7, "mic"), audio=Message(audio_data=data, info=info))
    chunk = audio_chunk(msg, "mic")
    assert chunk.rate_hz == 48_000
    np.testing.assert_allclose(chunk.samples, STEREO, atol=0.012)


def test_mgonzs13_unknown_format(types):
    msg = Message(
        header=header_message(types, 7, "mic"),
        audio=Message(audio_data=Message(), info=Message(format=4, channels=1, rate=16_000, chunk=1)),
    )
    with pytest.raises(MessageError, match="format 4"):
        audio_chunk(msg, "mic")
