"""Video topics (H.264, H.265) to frames. Decoding starts at a key frame and happens only when a frame is looked at.

A delta frame needs all frames since the last key frame. So the packets since then are kept, and they are decoded when
one of them is looked at. When a new key frame comes, the older packets are dropped. Packets are in Annex B format, one
picture each.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from salmonn_node.messages.base import MessageError, field_names, frame_of, header_stamp_ns
from salmonn_node.messages.images import image_frame
from salmonn_node.stream.observations import SECOND_NS, EncodedFrame

RgbImage = npt.NDArray[np.uint8]
MAX_HELD_BYTES = 64 << 20  # of packets that wait for a look; at 4 Mbit/s two minutes
MAX_BACK_NS = SECOND_NS  # with B-frames packets come out of the order of their stamps; more is another stream
KEY_FLAG = 1  # of FFMPEGPacket.flags: AV_PKT_FLAG_KEY
_CODECS = (("h264", re.compile(r"[hx]\.?264|avc")), ("hevc", re.compile(r"[hx]\.?265|hevc")))
_START = b"\0\0\1"


@dataclass
class _Group:
    """The packets from a key frame on.

    Attributes:
        codec: FFmpeg's name of the decoder.
        packets: one per picture; empty bytes where a decoded packet was dropped.
        held: bytes in all packets.
        kept: decoded packets are kept too, because the decoder must start again at the key frame.
    """

    codec: str
    packets: list[bytes] = field(default_factory=list)
    held: int = 0
    kept: bool = False

    def release(self, count: int) -> None:
        """Drop the first `count` packets."""
        for index in range(count - 1, -1, -1):
            if not self.packets[index]:
                break
            self.held -= len(self.packets[index])
            self.packets[index] = b""


class CameraPictures:
    """Converts the messages of one camera, pictures or video packets, to frames.

    Call it from one thread. Another thread may decode the frames, in the same order.

    Args:
        source: name of the camera.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._group: _Group | None = None
        self._last_ns = 0
        self._lock = threading.Lock()  # guards groups and the decoder
        self._context: Any = None
        self._decoding: _Group | None = None
        self._next = 0

    def __call__(self, msg: Any) -> EncodedFrame:
        """Check a message and wrap it as a frame.

        Raises:
            MessageError: as `image_frame`. For video: "image_bad_encoding", "image_empty", "video_no_key_frame" (no key
                frame has come yet) or "video_too_long" (MAX_HELD_BYTES without a key frame or a look).
        """
        codec = video_codec(msg)
        if not codec:
            return image_frame(msg, self._source)
        stamp, data = header_stamp_ns(msg), bytes(msg.data)
        if not data:
            raise MessageError("image_empty", f"{codec} packet has no data")
        key = is_key_frame(codec, data) or bool(getattr(msg, "flags", 0) & KEY_FLAG)
        with self._lock:
            back, self._last_ns = stamp < self._last_ns - MAX_BACK_NS, stamp
            if key:
                self._group = _Group(codec)
            elif self._group is None or self._group.codec != codec or back:
                self._group = None
                text = f"{codec} packet before any key frame (Annex B is expected): it cannot be decoded"
                raise MessageError("video_no_key_frame", text)
            group = self._group
            if group.held + len(data) > MAX_HELD_BYTES:
                self._group = None
                raise MessageError("video_too_long", f"{group.held} bytes of {codec} since the last key frame")
            group.packets.append(data)
            group.held += len(data)
            number = len(group.packets) - 1
        return EncodedFrame(stamp, self._source, partial(self._decode, group, number), frame_of(msg))

    def _decode(self, group: _Group, number: int) -> RgbImage:
        """Decode one packet's picture: (H, W, 3) uint8 RGB. Raises ValueError when that is not possible."""
        import av

        with self._lock:
            if self._decoding is not group or self._next > number:
                if not group.packets[0]:
                    raise ValueError("the packets before this picture are gone")
                self._context = av.CodecContext.create(group.codec, "r")
                self._context.thread_count = 1  # with more threads pictures come out later
                self._decoding, self._next = group, 0
            picture = None
            for index in range(self._next, number + 1):
                packet = av.Packet(group.packets[index])
                packet.pts = packet.dts = index
                picture = self._fed(packet, number) or picture
            self._next = number + 1
            if picture is None:
                # With B-frames the decoder returns pictures later. Flush it; it must then start again.
                picture = self._fed(None, number)
                self._decoding, group.kept = None, True
            elif not group.kept:
                group.release(number + 1)
            if picture is None or picture.is_corrupt:
                raise ValueError(f"the {group.codec} packet cannot be decoded: packets before it were lost or damaged")
            return picture.to_ndarray(format="rgb24")

    def _fed(self, packet: Any, number: int) -> Any:
        """Feed `packet` to the decoder; return the picture of packet `number` if it comes out now."""
        import av

        try:
            return next((frame for frame in self._context.decode(packet) if frame.pts == number), None)
        except av.FFmpegError:
            return None  # the next key frame starts anew


def video_codec(msg: Any) -> str:
    """FFmpeg's name of the codec of a video packet, empty for a message that is a picture.

    Raises:
        MessageError: "image_bad_encoding": a FFMPEGPacket of another codec.
    """
    names = field_names(msg)
    stated = str(msg.encoding if "pts" in names else msg.format if "format" in names else "").partition(";")[0]
    found = next((codec for codec, name in _CODECS if name.search(stated.lower())), "")
    if "pts" in names and not found:
        raise MessageError("image_bad_encoding", f"video encoding {stated[:40]!r}, expected H.264 or H.265")
    return found


def is_key_frame(codec: str, data: bytes) -> bool:
    """Whether the first slice of an Annex B packet can be decoded by itself (IDR, or IRAP in H.265)."""
    at = data.find(_START)
    while 0 <= at < len(data) - 3:
        if codec == "h264":
            kind = data[at + 3] & 0x1F  # ITU-T H.264, table 7-1
            if 1 <= kind <= 5:
                return kind == 5
        else:
            kind = data[at + 3] >> 1 & 0x3F  # ITU-T H.265, table 7-1
            if kind < 32:
                return 16 <= kind <= 23
        at = data.find(_START, at + 3)
    return False
