"""Camera messages to RGB: raw encodings with their steps and sizes, and JPEG or PNG; damaged ones are refused."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from salmonn_node.messages.base import MessageError, field_names, header_stamp_ns
from salmonn_node.stream.observations import EncodedFrame

# A compressed header of a few bytes can announce any size; 64 Mpx is twice the largest robot camera.
MAX_PIXELS = 64_000_000

RgbImage = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Encoding:
    """A raw encoding: bytes per pixel in a row, conversion to RGB (None: it is RGB), whether a 4:2:0 plane follows."""

    channels: int
    to_rgb: int | None
    even_width: bool = False
    half_height_more: bool = False  # a plane of half the height follows (4:2:0)


# Names of sensor_msgs/image_encodings; cv2 names a Bayer pattern's conversion by the pattern since 4.5.
ENCODINGS: dict[str, _Encoding] = {
    "rgb8": _Encoding(3, None),
    "bgr8": _Encoding(3, cv2.COLOR_BGR2RGB),
    "rgba8": _Encoding(4, cv2.COLOR_RGBA2RGB),
    "bgra8": _Encoding(4, cv2.COLOR_BGRA2RGB),
    "mono8": _Encoding(1, cv2.COLOR_GRAY2RGB),
    "yuv422": _Encoding(2, cv2.COLOR_YUV2RGB_UYVY, even_width=True),
    "uyvy": _Encoding(2, cv2.COLOR_YUV2RGB_UYVY, even_width=True),
    "yuv422_yuy2": _Encoding(2, cv2.COLOR_YUV2RGB_YUY2, even_width=True),
    "yuyv": _Encoding(2, cv2.COLOR_YUV2RGB_YUY2, even_width=True),
    "nv12": _Encoding(1, cv2.COLOR_YUV2RGB_NV12, even_width=True, half_height_more=True),
    "bayer_rggb8": _Encoding(1, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr8": _Encoding(1, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg8": _Encoding(1, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg8": _Encoding(1, cv2.COLOR_BayerGRBG2RGB),
}


def image_frame(msg: Any, source: str) -> EncodedFrame:
    """Check a sensor_msgs Image or CompressedImage and wrap it, unconverted, as a frame of camera `source`.

    Cheap (no pixel is touched): meant for a callback. Raises MessageError naming the field that is wrong.
    """
    stamp = header_stamp_ns(msg)
    check_image(msg)
    return EncodedFrame(stamp, source, _decoder(msg), str(msg.header.frame_id))


def check_image(msg: Any) -> None:
    """Check encoding, dimensions, step and size of an Image, or format and completeness of a CompressedImage.

    Raises MessageError: "image_empty", "image_bad_encoding", "image_bad_step", "image_bad_size", "image_too_large",
    "image_truncated".
    """
    if "format" in field_names(msg):
        _check_compressed(memoryview(msg.data).cast("B"), str(msg.format))
    else:
        _check_raw(msg)


def image_to_rgb(msg: Any) -> RgbImage:
    """(H, W, 3) uint8 RGB of an Image or CompressedImage; a read-only view of the message where it is rgb8 already.

    Raises MessageError as `check_image` does, and "image_undecodable".
    """
    check_image(msg)
    return _decoder(msg)()


def _decoder(msg: Any) -> Callable[[], RgbImage]:
    if "format" in field_names(msg):
        return lambda: _decode_compressed(msg.data)
    return lambda: _decode_raw(msg)


def _check_raw(msg: Any) -> None:
    height, width, step, size = int(msg.height), int(msg.width), int(msg.step), len(msg.data)
    encoding = ENCODINGS.get(str(msg.encoding).lower())
    if encoding is None:
        known = ", ".join(ENCODINGS)
        raise MessageError("image_bad_encoding", f"encoding {str(msg.encoding)[:40]!r} is not one of {known}")
    if height == 0 or width == 0:
        raise MessageError("image_empty", f"image is {width}x{height}")
    if height * width > MAX_PIXELS:
        raise MessageError("image_too_large", f"image is {width}x{height}, at most {MAX_PIXELS} pixels are taken")
    if (encoding.even_width and width % 2) or (encoding.half_height_more and height % 2):
        raise MessageError("image_bad_size", f"{msg.encoding} needs even dimensions, got {width}x{height}")
    if str(msg.encoding).startswith("bayer") and min(width, height) < 2:
        raise MessageError("image_bad_size", f"{msg.encoding} needs at least 2x2 pixels, got {width}x{height}")
    if step < width * encoding.channels:
        raise MessageError(
            "image_bad_step", f"step is {step}, {width} px of {msg.encoding} need {width * encoding.channels}"
        )
    rows = height * 3 // 2 if encoding.half_height_more else height
    if size != step * rows:
        raise MessageError("image_bad_size", f"data has {size} bytes, {rows} rows of step {step} need {step * rows}")


def _decode_raw(msg: Any) -> RgbImage:
    encoding = ENCODINGS[str(msg.encoding).lower()]
    rows = msg.height * 3 // 2 if encoding.half_height_more else msg.height
    data = np.frombuffer(msg.data, np.uint8)
    view: RgbImage = np.lib.stride_tricks.as_strided(
        data, (rows, msg.width, encoding.channels), (msg.step, encoding.channels, 1), writeable=False
    )
    if encoding.to_rgb is None:
        return view
    try:
        return cv2.cvtColor(np.ascontiguousarray(view), encoding.to_rgb).astype(np.uint8, copy=False)
    except cv2.error as error:
        raise MessageError("image_undecodable", f"cannot convert {msg.encoding}: {error}") from error


def _check_compressed(data: memoryview, name: str) -> None:
    head = bytes(data[:8])
    if not head:
        raise MessageError("image_empty", "compressed image has no data")
    if head.startswith(b"\xff\xd8"):
        # libjpeg fills the missing rest of a picture with grey and calls it a success.
        if not bytes(data[-64:]).rstrip(b"\0").endswith(b"\xff\xd9"):
            raise MessageError("image_truncated", f"JPEG of {len(data)} bytes has no end marker")
        width, height = _jpeg_size(data)
    elif head == b"\x89PNG\r\n\x1a\n":
        if b"IEND" not in bytes(data[-64:]) or len(data) < 45:
            raise MessageError("image_truncated", f"PNG of {len(data)} bytes has no end chunk")
        width, height = struct.unpack(">II", data[16:24])
    else:
        raise MessageError(
            "image_bad_encoding", f"compressed image is neither JPEG nor PNG, its format is {name[:40]!r}"
        )
    if width == 0 or height == 0:
        raise MessageError("image_empty", f"compressed image is {width}x{height}")
    if width * height > MAX_PIXELS:
        raise MessageError("image_too_large", f"image is {width}x{height}, at most {MAX_PIXELS} pixels are taken")


def _jpeg_size(data: memoryview) -> tuple[int, int]:
    """Width and height from the start-of-frame segment (ITU-T T.81, B.2.2); raises MessageError when there is none."""
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise MessageError("image_undecodable", "JPEG has no start-of-frame segment")


def _decode_compressed(data: Any) -> RgbImage:
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise MessageError("image_undecodable", f"cannot decode the compressed image: {error}") from error
    if bgr is None:
        raise MessageError("image_undecodable", f"cannot decode the compressed image of {len(data)} bytes")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
