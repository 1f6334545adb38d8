"""Camera messages to RGB: raw encodings with their steps and sizes, and JPEG or PNG; damaged ones are refused.

Not built on rosbags-image: that takes no notice of `step`, cuts the planes of NV12, and asserts on damaged pictures.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from salmonn_node.messages.base import MessageError, field_names, frame_of, header_stamp_ns
from salmonn_node.stream.observations import EncodedFrame

# A compressed header of a few bytes can announce any size; 64 Mpx is twice the largest robot camera.
MAX_PIXELS = 64_000_000

RgbImage = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Encoding:
    """A raw encoding.

    Attributes:
        channels: values per pixel in a row.
        to_rgb: cv2's conversion; None: it is RGB.
        even_width: whether the width must be even.
        half_height_more: whether a plane of half the height follows (4:2:0).
        bits: of a value; 16 are scaled to 8 as cv_bridge does (65535 becomes 255).
    """

    channels: int
    to_rgb: int | None
    even_width: bool = False
    half_height_more: bool = False
    bits: int = 8


# Names of sensor_msgs/image_encodings; cv2 names a Bayer pattern's conversion by the pattern since 4.5. What OpenCV
# calls 8UC3 has no stated meaning in ROS; drivers mean by it what OpenCV does, and rviz shows it so.
ENCODINGS: dict[str, _Encoding] = {
    "rgb8": _Encoding(3, None),
    "bgr8": _Encoding(3, cv2.COLOR_BGR2RGB),
    "rgba8": _Encoding(4, cv2.COLOR_RGBA2RGB),
    "bgra8": _Encoding(4, cv2.COLOR_BGRA2RGB),
    "mono8": _Encoding(1, cv2.COLOR_GRAY2RGB),
    "8uc1": _Encoding(1, cv2.COLOR_GRAY2RGB),
    "8uc3": _Encoding(3, cv2.COLOR_BGR2RGB),
    "8uc4": _Encoding(4, cv2.COLOR_BGRA2RGB),
    "rgb16": _Encoding(3, None, bits=16),
    "bgr16": _Encoding(3, cv2.COLOR_BGR2RGB, bits=16),
    "rgba16": _Encoding(4, cv2.COLOR_RGBA2RGB, bits=16),
    "bgra16": _Encoding(4, cv2.COLOR_BGRA2RGB, bits=16),
    "mono16": _Encoding(1, cv2.COLOR_GRAY2RGB, bits=16),
    "yuv422": _Encoding(2, cv2.COLOR_YUV2RGB_UYVY, even_width=True),
    "uyvy": _Encoding(2, cv2.COLOR_YUV2RGB_UYVY, even_width=True),
    "yuv422_yuy2": _Encoding(2, cv2.COLOR_YUV2RGB_YUY2, even_width=True),
    "yuyv": _Encoding(2, cv2.COLOR_YUV2RGB_YUY2, even_width=True),
    "nv12": _Encoding(1, cv2.COLOR_YUV2RGB_NV12, even_width=True, half_height_more=True),
    "nv21": _Encoding(1, cv2.COLOR_YUV2RGB_NV21, even_width=True, half_height_more=True),
}
for _pattern in ("rggb", "bggr", "gbrg", "grbg"):
    for _bits in (8, 16):
        ENCODINGS[f"bayer_{_pattern}{_bits}"] = _Encoding(
            1, getattr(cv2, f"COLOR_Bayer{_pattern.upper()}2RGB"), bits=_bits
        )
# Depth, disparity and other measurements: numbers of OpenCV's types other than bytes.
_MEASURED = re.compile(r"(8S|16U|16S|32S|32F|64F)C\d+", re.IGNORECASE)
_COLOURS = re.compile(r"(rgb|bgr)a?(8|16)")
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xae\x42\x60\x82"


def image_frame(msg: Any, source: str) -> EncodedFrame:
    """Check a sensor_msgs Image or CompressedImage and wrap it, unconverted, as a frame of camera `source`.

    Cheap (no pixel is touched): meant for a callback. Raises MessageError naming the field that is wrong.
    """
    stamp = header_stamp_ns(msg)
    check_image(msg)
    return EncodedFrame(stamp, source, _decoder(msg), frame_of(msg))


def measured_encoding(msg: Any) -> str:
    """Encoding of an Image or CompressedImage that holds depth or other measurements; empty for a picture."""
    if "format" not in field_names(msg):
        return str(msg.encoding) if _MEASURED.fullmatch(str(msg.encoding)) else ""
    name = str(msg.format)
    encoding = name.partition(";")[0].strip()
    if _MEASURED.fullmatch(encoding) or "compressedDepth" in name:
        return name
    head = bytes(memoryview(msg.data).cast("B")[:26])
    # Drivers that do not state an encoding send depth as PNG of one channel with 16 bits, and no picture so.
    grey16 = head.startswith(_PNG_START) and head[24:26] == b"\x10\x00"
    return f"{name or 'png'}, 16-bit grey" if grey16 and encoding != "mono16" else ""


def check_image(msg: Any) -> None:
    """Check encoding, dimensions, step and size of an Image, or format and completeness of a CompressedImage.

    Raises MessageError: "image_is_depth", "image_empty", "image_bad_encoding", "image_bad_step", "image_bad_size",
    "image_too_large", "image_truncated".
    """
    measured = measured_encoding(msg)
    if measured:
        raise MessageError("image_is_depth", f"encoding {measured[:40]!r} holds measurements, expected a picture")
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
        return lambda: _decode_compressed(msg.data, str(msg.format))
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
    if str(msg.encoding).lower().startswith("bayer") and min(width, height) < 2:
        raise MessageError("image_bad_size", f"{msg.encoding} needs at least 2x2 pixels, got {width}x{height}")
    row = width * encoding.channels * encoding.bits // 8
    if step < row:
        raise MessageError("image_bad_step", f"step is {step}, {width} px of {msg.encoding} need {row}")
    rows = height * 3 // 2 if encoding.half_height_more else height
    if size != step * rows:
        raise MessageError("image_bad_size", f"data has {size} bytes, {rows} rows of step {step} need {step * rows}")


def _decode_raw(msg: Any) -> RgbImage:
    encoding = ENCODINGS[str(msg.encoding).lower()]
    rows = msg.height * 3 // 2 if encoding.half_height_more else msg.height
    data, pixel = np.frombuffer(msg.data, np.uint8), encoding.channels * encoding.bits // 8
    view: RgbImage = np.lib.stride_tricks.as_strided(
        data, (rows, msg.width, pixel), (msg.step, pixel, 1), writeable=False
    )
    if encoding.bits == 16:
        view = _eight_bits(view, ">u2" if getattr(msg, "is_bigendian", 0) else "<u2")
    if encoding.to_rgb is None:
        return view
    try:
        return cv2.cvtColor(np.ascontiguousarray(view), encoding.to_rgb).astype(np.uint8, copy=False)
    except cv2.error as error:
        raise MessageError("image_undecodable", f"cannot convert {msg.encoding}: {error}") from error


def _eight_bits(view: RgbImage, dtype: str) -> RgbImage:
    """(H, W, C) uint8 of the bytes (H, W, 2 C) of 16-bit values: 255/65535 of each, rounded, as cv_bridge has it."""
    values = np.ascontiguousarray(view).view(dtype).astype(np.uint32)
    return ((values + 128) // 257).astype(np.uint8)


def _check_compressed(data: memoryview, name: str) -> None:
    head = bytes(data[:8])
    if not head:
        raise MessageError("image_empty", "compressed image has no data")
    if head.startswith(_JPEG_START):
        width, height, scan = _jpeg_size(data)
        # libjpeg fills the missing rest of a picture with grey and calls it a success.
        if not _ends(data, scan, _JPEG_END):
            raise MessageError("image_truncated", f"JPEG of {len(data)} bytes has no end marker")
    elif head == _PNG_START:
        if len(data) < 45 or not _ends(data, 33, _PNG_END):
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


def _ends(data: memoryview, start: int, marker: bytes) -> bool:
    """Whether a picture's end marker comes behind `start`.

    Drivers send whole buffers: zeros, or what an earlier picture left in the buffer, follow the marker. Inside the
    picture it cannot occur: JPEG writes a zero behind each 0xFF of its scans (ITU-T T.81, B.1.1.5).
    """
    return bytes(data[-64:]).rstrip(b"\0").endswith(marker) or bytes(data[start:]).find(marker) >= 0


def _jpeg_size(data: memoryview) -> tuple[int, int, int]:
    """Width, height, and where the first scan begins (ITU-T T.81, B.2.2); raises MessageError when there is none."""
    at, size = 2, (0, 0)
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 9 <= len(data):
            size = struct.unpack(">HH", data[at + 5 : at + 9])
        if marker == 0xDA:
            if size == (0, 0):
                break
            return size[1], size[0], at + 2 + length
        at += 2 + length
    raise MessageError("image_undecodable", "JPEG has no whole head: start of frame and start of scan")


def _decode_compressed(data: Any, name: str) -> RgbImage:
    """Decode as image_transport's compressed decoder does, which reads the colours' order from `format`."""
    encoding, said, stored = name.partition(";")
    encoding = encoding.strip().lower()
    bayer = ENCODINGS[encoding].to_rgb if encoding.startswith("bayer") and encoding in ENCODINGS else None
    flags = (cv2.IMREAD_COLOR if bayer is None else cv2.IMREAD_ANYCOLOR) | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if picture is None:
            raise MessageError("image_undecodable", f"cannot decode the compressed image of {len(data)} bytes")
        if picture.ndim == 2 and bayer is not None:
            return cv2.cvtColor(picture, bayer).astype(np.uint8, copy=False)
    except cv2.error as error:
        raise MessageError("image_undecodable", f"cannot decode the compressed image: {error}") from error
    if said and _COLOURS.fullmatch(encoding) and "compressed bgr" not in stored:
        return picture.astype(np.uint8, copy=False)  # compressed as if it were BGR: what comes out is RGB
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
