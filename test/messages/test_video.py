"""Video packets become frames: the right picture for each stamp, wherever one looks, and only what can be decoded."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salmonn_node.messages import MessageError
from salmonn_node.messages.video import CameraPictures, is_key_frame, video_codec
from salmonn_node.stream.observations import SECOND_NS

WIDTH, HEIGHT, COUNT, GROUP = 64, 48, 24, 8
ENCODERS = {"h264": ("libx264", "h264"), "hevc": ("libx265", "hevc")}


def grey(number: int) -> int:
    return 20 + 9 * number


def encoded(codec: str, *, b_frames: int = 0, group: int = GROUP) -> list[tuple[int, bytes, bool]]:
    """(number of the picture, packet, whether FFmpeg calls it a key frame) in the order of decoding."""
    context: Any = av.CodecContext.create(ENCODERS[codec][0], "w")
    context.width, context.height, context.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    context.time_base, context.framerate, context.gop_size = Fraction(1, 30), Fraction(30), group
    context.max_b_frames = b_frames
    strict = f"keyint={group}:min-keyint={group}:scenecut=0:bframes={b_frames}:open-gop=0"
    option = "x264-params" if codec == "h264" else "x265-params"
    context.options = {
        option: strict + ("" if codec == "h264" else ":log-level=none"),
        "preset": "ultrafast",
        "crf": "8",
    }
    found = []
    for number in range(COUNT):
        frame = av.VideoFrame.from_ndarray(np.full((HEIGHT, WIDTH, 3), grey(number), np.uint8), format="rgb24")
        frame.pts = number
        found += context.encode(frame)
    found += context.encode(None)
    return [(int(packet.pts), bytes(packet), bool(packet.is_keyframe)) for packet in found]


@pytest.fixture(scope="module", params=["h264", "hevc"])
def codec(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def packets(codec: str) -> list[tuple[int, bytes, bool]]:
    return encoded(codec)


def foxglove(number: int, data: bytes, name: str) -> Any:
    sec, nanosec = divmod(SECOND_NS + number * SECOND_NS // 30, SECOND_NS)
    return message({"timestamp": SimpleNamespace(sec=sec, nanosec=nanosec), "frame_id": "/cam", "format": name}, data)


def ffmpeg(number: int, data: bytes, name: str, key: bool = False) -> Any:
    sec, nanosec = divmod(SECOND_NS + number * SECOND_NS // 30, SECOND_NS)
    header = SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec), frame_id="cam")
    return message({"header": header, "encoding": name, "pts": number, "flags": int(key)}, data)


def compressed(number: int, data: bytes, name: str) -> Any:
    sec, nanosec = divmod(SECOND_NS + number * SECOND_NS // 30, SECOND_NS)
    header = SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec), frame_id="cam")
    return message({"header": header, "format": name}, data)


def message(fields: dict[str, Any], data: bytes) -> Any:
    fields = {**fields, "data": np.frombuffer(data, np.uint8)}
    return SimpleNamespace(**fields, get_fields_and_field_types=lambda: dict.fromkeys(fields, ""))


def looked_at(packets: Sequence[tuple[int, bytes, bool]], codec: str, looks: set[int]) -> dict[int, float]:
    """Mean grey of the pictures that are looked at, by number; the others are only passed over."""
    camera, found = CameraPictures("cam"), {}
    for number, data, _ in packets:
        frame = camera(foxglove(number, data, "h264" if codec == "h264" else "h265"))
        assert (frame.source, frame.frame_id) == ("cam", "cam")
        if number in looks:
            image = frame.decode()
            assert image.shape == (HEIGHT, WIDTH, 3)
            found[number] = float(image.mean())
    return found


@settings(max_examples=20, deadline=None)
@given(looks=st.sets(st.integers(0, COUNT - 1), max_size=8))
def test_each_look_gives_the_picture_of_its_packet(packets, codec, looks) -> None:
    for number, mean in looked_at(packets, codec, looks).items():
        assert abs(mean - grey(number)) < 3


def test_the_picture_does_not_depend_on_what_was_looked_at_before(packets, codec) -> None:
    every = looked_at(packets, codec, set(range(COUNT)))
    assert len(every) == COUNT
    for number in range(COUNT):
        assert looked_at(packets, codec, {number})[number] == every[number]


def test_b_frames_come_out_right_too(codec) -> None:
    found = looked_at(encoded(codec, b_frames=2), codec, {0, 3, 5, 6, 7, 12, 23})
    assert len(found) == 7
    for number, mean in found.items():
        assert abs(mean - grey(number)) < 3


def test_a_stream_whose_only_key_frame_is_the_first_keeps_nothing_that_was_decoded(codec, monkeypatch) -> None:
    found = encoded(codec, group=10 * COUNT)
    assert [key for _, _, key in found].count(True) == 1
    whole = sum(len(data) for _, data, _ in found)
    monkeypatch.setattr("salmonn_node.messages.video.MAX_HELD_BYTES", whole - 1)
    assert len(looked_at(found, codec, set(range(0, COUNT, 4)))) == COUNT // 4
    with pytest.raises(MessageError) as error:
        looked_at(found, codec, set())
    assert error.value.reason == "video_too_long"


def test_what_comes_before_a_key_frame_is_refused_by_name(packets, codec) -> None:
    camera = CameraPictures("cam")
    for number, data, _ in packets[3:GROUP]:
        with pytest.raises(MessageError, match="before any key frame") as error:
            camera(foxglove(number, data, codec))
        assert error.value.reason == "video_no_key_frame"
    number, data, _ = packets[GROUP]
    assert abs(camera(foxglove(200, data, codec)).decode().mean() - grey(number)) < 3
    # Time that steps back, as when a bag is played again, does not go on with the old pictures.
    with pytest.raises(MessageError, match="before any key frame"):
        camera(foxglove(3, packets[3][1], codec))


def test_both_message_types_and_the_names_that_drivers_give(packets, codec) -> None:
    names = (
        ["h264", "H.264", "libx264", "h264_nvenc;nv12;bgr8;bgr8"] if codec == "h264" else ["h265", "hevc", "libx265"]
    )
    for name in names:
        for make in (ffmpeg, foxglove, compressed):
            camera = CameraPictures("cam")
            assert abs(camera(make(0, packets[0][1], name)).decode().mean() - grey(0)) < 3
    with pytest.raises(MessageError, match="'libsvtav1', expected H.264 or H.265") as error:
        CameraPictures("cam")(ffmpeg(0, packets[0][1], "libsvtav1;yuv420p"))
    assert error.value.reason == "image_bad_encoding"
    with pytest.raises(MessageError, match="vp9"):
        CameraPictures("cam")(foxglove(0, packets[0][1], "vp9"))


def test_key_frames_are_told_by_their_bytes(packets, codec) -> None:
    assert [is_key_frame(codec, data) for _, data, _ in packets] == [key for _, _, key in packets]
    assert video_codec(foxglove(0, b"", "jpeg")) == ""


def test_damaged_packets_end_nothing(packets, codec) -> None:
    """A look either gives a picture or a ValueError; behind the next key frame all is well again."""
    camera = CameraPictures("cam")
    for number, data, _ in packets:
        hurt = data[: len(data) // 2] if number == 2 else data[:5] + b"\xff" * 9 if number == 4 else data
        frame = camera(foxglove(number, hurt, codec))
        try:
            image = frame.decode()
        except ValueError:
            assert number < GROUP
            continue
        assert number < GROUP or abs(image.mean() - grey(number)) < 3


@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=60), key=st.booleans())
def test_noise_is_refused_or_cannot_be_decoded(data: bytes, key: bool) -> None:
    try:
        frame = CameraPictures("cam")(ffmpeg(0, data, "h264", key))
    except MessageError:
        return
    with pytest.raises(ValueError, match="cannot be decoded"):
        frame.decode()
