"""Images of every encoding arrive as RGB; damaged ones are refused with the field's name."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from salmonn_node.messages import MessageError, MessageTypes, image_frame, image_to_rgb
from salmonn_node.messages.base import header_message
from salmonn_node.messages.images import ENCODINGS

RED, GREEN, BLUE, GREY = (220, 30, 40), (20, 200, 50), (10, 60, 230), (128, 128, 128)


def scene(height: int = 16, width: int = 24) -> np.ndarray:
    """Four flat quarters, so that chroma subsampling and demosaicing are exact away from the borders."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = RED, GREEN
    image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :] = BLUE, GREY
    return image


def yuv(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) BT.601 limited range, by the standard's formula and not by the library under test."""
    matrix = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255.0
    return np.clip(np.round(image @ matrix.T + [16, 128, 128]), 0, 255).astype(np.uint8)


# Names that say the same in other words.
SAME = {"8uc1": "mono8", "8uc3": "bgr8", "8uc4": "bgra8"}


def encode(image: np.ndarray, encoding: str, order: str = "<") -> np.ndarray:
    """(rows, row bytes) as a camera would send it; 16-bit values in the given byte order."""
    height, width = image.shape[:2]
    encoding = SAME.get(encoding, encoding)
    if encoding.endswith("16"):
        wide = encode(image, encoding[:-2] + "8").astype(f"{order}u2") * 257
        return wide.astype(f"{order}u2").view(np.uint8)
    if encoding == "rgb8":
        planes = image
    elif encoding == "bgr8":
        planes = image[..., ::-1]
    elif encoding in ("rgba8", "bgra8"):
        planes = np.dstack([image if encoding == "rgba8" else image[..., ::-1], np.full((height, width), 7, np.uint8)])
    elif encoding == "mono8":
        planes = image[..., 1]
    elif encoding.startswith("bayer"):
        planes = np.zeros((height, width), np.uint8)
        for at, colour in enumerate(encoding[6:10]):
            planes[at // 2 :: 2, at % 2 :: 2] = image[at // 2 :: 2, at % 2 :: 2, "rgb".index(colour)]
    else:
        full = yuv(image)
        chroma = full[:, ::2, 1:]
        if encoding in ("nv12", "nv21"):
            chroma = chroma if encoding == "nv12" else chroma[..., ::-1]
            return np.vstack([full[..., 0], chroma[::2].reshape(height // 2, width)])
        planes = np.zeros((height, width, 2), np.uint8)
        luma = 1 if encoding in ("yuv422", "uyvy") else 0
        planes[..., luma] = full[..., 0]
        planes[:, ::2, 1 - luma], planes[:, 1::2, 1 - luma] = chroma[..., 0], chroma[..., 1]
    return np.ascontiguousarray(planes).reshape(height, -1)


def image_message(
    types: MessageTypes, rows: np.ndarray, encoding: str, width: int, height: int, pad: int = 0, **change
):
    rows = np.pad(rows, ((0, 0), (0, pad)))
    fields = {
        "header": header_message(types, 5_000_000_001, "camera_optical"),
        "height": height,
        "width": width,
        "encoding": encoding,
        "is_bigendian": 0,
        "step": rows.shape[1],
        "data": types.data(rows.tobytes()),
    }
    return types.new("sensor_msgs/msg/Image", **(fields | change))


def compressed_message(types: MessageTypes, data: bytes, name: str = "jpeg"):
    header = header_message(types, 5_000_000_001, "camera_optical")
    return types.new("sensor_msgs/msg/CompressedImage", header=header, format=name, data=types.data(data))


@pytest.mark.parametrize("pad", [0, 8])
@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_every_encoding_gives_the_scene(types, encoding, pad):
    image = scene()
    frame = image_frame(image_message(types, encode(image, encoding), encoding, 24, 16, pad), "front")
    rgb = frame.decode()
    assert rgb.dtype == np.uint8
    assert rgb.shape == (16, 24, 3)
    grey = encoding in ("mono8", "8uc1", "mono16")
    expected = np.repeat(image[..., 1:2], 3, axis=2) if grey else image
    tolerance = 4 if encoding.startswith(("bayer", "nv", "uyvy", "yu")) else 0
    for rows in (slice(2, 6), slice(10, 14)):
        for columns in (slice(3, 9), slice(15, 21)):
            difference = np.abs(rgb[rows, columns].astype(int) - expected[rows, columns])
            assert difference.max() <= tolerance
    assert (frame.stamp_ns, frame.source, frame.frame_id) == (5_000_000_001, "front", "camera_optical")


def test_values_of_sixteen_bits_follow_the_byte_order_and_are_scaled_as_cv_bridge_does(types):
    rows = encode(scene(), "mono16", ">")
    big = image_to_rgb(image_message(types, rows, "mono16", 24, 16, is_bigendian=1))
    np.testing.assert_array_equal(big[..., 0], scene()[..., 1])
    values = np.array([[0, 127, 128, 129, 385, 386, 65279, 65535]], "<u2")
    rgb = image_to_rgb(image_message(types, values.view(np.uint8), "mono16", 8, 1))
    np.testing.assert_array_equal(rgb[0, :, 0], np.rint(values[0] * (255 / 65535)))


def test_rgb8_is_a_view(types):
    msg = image_message(types, encode(scene(), "rgb8"), "rgb8", 24, 16)
    assert np.shares_memory(image_to_rgb(msg), np.frombuffer(msg.data, np.uint8))


@pytest.mark.parametrize(("suffix", "tolerance"), [(".png", 0), (".jpg", 12)])
def test_compressed(types, suffix, tolerance):
    image = scene(64, 64)
    data = cv2.imencode(suffix, image[..., ::-1])[1].tobytes()
    rgb = image_to_rgb(compressed_message(types, data, "rgb8; jpeg compressed bgr8"))
    assert np.abs(rgb[8:24, 8:24].astype(int) - image[8:24, 8:24]).max() <= tolerance


@pytest.mark.parametrize(
    ("change", "reason", "text"),
    [
        ({"step": 71}, "image_bad_step", "step"),
        ({"step": 0}, "image_bad_step", "step"),
        ({"height": 17}, "image_bad_size", "data"),
        ({"height": 15}, "image_bad_size", "data"),
        ({"encoding": "32FC1"}, "image_is_depth", "32FC1"),
        ({"encoding": "16UC1"}, "image_is_depth", "16UC1"),
        ({"encoding": "hsv8"}, "image_bad_encoding", "hsv8"),
        ({"encoding": ""}, "image_bad_encoding", "encoding"),
        ({"width": 0}, "image_empty", "0x16"),
        ({"height": 0}, "image_empty", "24x0"),
        ({"width": 2**32 - 1, "height": 2**32 - 1, "step": 2**32 - 1}, "image_too_large", "pixels"),
        ({"width": 23, "encoding": "yuv422"}, "image_bad_size", "even"),
    ],
)
def test_bad_images_are_refused_by_name(types, change, reason, text):
    msg = image_message(types, encode(scene(), "rgb8"), "rgb8", 24, 16)
    for name, value in change.items():
        setattr(msg, name, value)
    with pytest.raises(MessageError, match=text) as error:
        image_frame(msg, "front")
    assert error.value.reason == reason


def test_stamp_zero(types):
    msg = image_message(types, encode(scene(), "rgb8"), "rgb8", 24, 16, header=header_message(types, 0, "c"))
    with pytest.raises(MessageError, match="stamp") as error:
        image_frame(msg, "front")
    assert error.value.reason == "stamp_zero"


@pytest.mark.parametrize(
    ("name", "swapped"),
    [
        ("jpeg", False),
        ("png", False),
        ("", False),
        ("rgb8; jpeg compressed bgr8", False),
        ("bgr8; jpeg compressed bgr8", False),
        ("rgb8; jpeg compressed rgb8", True),
        ("bgr8; jpeg compressed rgb8", True),
        ("bgra8; png compressed rgb8", True),
        ("rgb8; jpeg", True),
        ("yuv422; jpeg compressed bgr8", False),
        ("mono8; jpeg compressed ", False),
    ],
)
def test_the_order_of_colours_is_that_of_image_transports_decoder(types, name, swapped):
    flat = np.full((16, 16, 3), RED, np.uint8)
    data = cv2.imencode(".png", flat[..., ::-1])[1].tobytes()
    rgb = image_to_rgb(compressed_message(types, data, name))
    assert tuple(rgb[8, 8]) == (RED[::-1] if swapped else RED)


def test_a_compressed_bayer_pattern_is_a_colour_picture(types):
    data = cv2.imencode(".png", encode(scene(), "bayer_rggb8"))[1].tobytes()
    rgb = image_to_rgb(compressed_message(types, data, "bayer_rggb8; png compressed "))
    assert np.abs(rgb[2:6, 3:9].astype(int) - RED).max() <= 4


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize(
    "behind", [b"\0" * 40_000, b"\xff\xd9" + b"what an earlier picture left" * 9, b"\0" * 70 + b"\1"]
)
def test_what_follows_the_end_of_a_picture_does_not_matter(types, suffix, behind):
    data = cv2.imencode(suffix, scene(64, 64)[..., ::-1])[1].tobytes()
    alone = image_to_rgb(compressed_message(types, data))
    np.testing.assert_array_equal(image_to_rgb(compressed_message(types, data + behind)), alone)


def test_depth_is_no_picture(types):
    depth = np.arange(16 * 24, dtype=np.uint16).reshape(16, 24)
    png = cv2.imencode(".png", depth)[1].tobytes()
    jpeg = cv2.imencode(".jpg", (depth >> 8).astype(np.uint8))[1].tobytes()
    for data, name in (
        (png, "16UC1; png compressed "),
        (jpeg, "16UC1; jpeg compressed "),
        (b"\0" * 12 + png, "16UC1; compressedDepth png"),
        (b"\0" * 12 + png, "32FC1; compressedDepth rvl"),
        (png, "png"),
        (png, ""),
    ):
        with pytest.raises(MessageError, match="expected a picture") as error:
            image_frame(compressed_message(types, data, name), "depth")
        assert error.value.reason == "image_is_depth"
    assert image_to_rgb(compressed_message(types, png, "mono16; png compressed ")).shape == (16, 24, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_every_truncation_is_refused(types, suffix):
    data = cv2.imencode(suffix, scene(32, 32))[1].tobytes()
    for size in range(len(data) - 1):
        with pytest.raises(MessageError):
            image_to_rgb(compressed_message(types, data[:size]))


def test_announced_size_is_bounded(types):
    data = bytearray(cv2.imencode(".png", scene(32, 32))[1].tobytes())
    data[16:24] = (100_000).to_bytes(4, "big") * 2
    with pytest.raises(MessageError, match="pixels"):
        image_to_rgb(compressed_message(types, bytes(data), "png"))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=400), start=st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]))
def test_noise_is_refused_or_decoded_never_worse(types, data, start):
    try:
        rgb = image_to_rgb(compressed_message(types, start + data + b"\xff\xd9"))
    except MessageError:
        return
    assert rgb.dtype == np.uint8
