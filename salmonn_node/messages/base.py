"""What all conversions share: the error with its reason, stamps, and making messages of either library."""

from __future__ import annotations

import array
import importlib
from typing import Any, Protocol

import numpy as np

from salmonn_node.stream.observations import SECOND_NS

MAX_SEC = 2**31 - 1  # builtin_interfaces/Time and Duration hold int32 seconds


class MessageError(ValueError):
    """A message that cannot be taken in.

    Attributes:
        reason: short name under which it is counted, such as "image_bad_step".
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class MessageTypes(Protocol):
    """Makes messages: those of rclpy or those of rosbags, which have the same fields."""

    def new(self, name: str, /, **fields: Any) -> Any:
        """Make a message of type `name` ("package/msg/Type") with all its fields given."""

    def data(self, data: bytes) -> Any:
        """Make the value of a uint8[] field."""


class RosTypes:
    """Messages of an installed ROS package, for rclpy; the package is imported at first use."""

    def new(self, name: str, /, **fields: Any) -> Any:
        """Make a message; raises ModuleNotFoundError when the package is not installed."""
        package, kind, cls = name.split("/")
        return getattr(importlib.import_module(f"{package}.{kind}"), cls)(**fields)

    def data(self, data: bytes) -> Any:
        """Give an array, the form that rclpy copies in one piece."""
        return array.array("B", data)


class RosbagsTypes:
    """Messages of a rosbags typestore that has the types of salmonn_interfaces registered."""

    def __init__(self, typestore: Any) -> None:
        """Use `typestore` (rosbags.typesys.store.Typestore)."""
        self._types = typestore.types

    def new(self, name: str, /, **fields: Any) -> Any:
        """Make a message; raises KeyError when the typestore does not know `name`."""
        return self._types[name](**fields)

    def data(self, data: bytes) -> Any:
        """Give a (n,) uint8 numpy array, which rosbags serialises."""
        return np.frombuffer(data, np.uint8)


def field_names(msg: Any) -> tuple[str, ...]:
    """Names of the fields of a message (object or class) of rclpy or rosbags."""
    if hasattr(msg, "get_fields_and_field_types"):
        return tuple(msg.get_fields_and_field_types())
    return tuple(name for name in msg.__dataclass_fields__ if name != "__msgtype__")


def stamp_ns(time: Any) -> int:
    """Nanoseconds of a builtin_interfaces Time or Duration."""
    return int(time.sec) * SECOND_NS + int(time.nanosec)


def message_stamp_ns(msg: Any) -> int:
    """Stamp of a message in ns: its header's, or its `timestamp` (foxglove_msgs); 0 when it has neither."""
    if hasattr(msg, "header"):
        return stamp_ns(msg.header.stamp)
    return stamp_ns(msg.timestamp) if hasattr(msg, "timestamp") else 0


def header_stamp_ns(msg: Any) -> int:
    """Stamp of a message in ns; raises MessageError ("stamp_zero") unless it is positive."""
    stamp = message_stamp_ns(msg)
    if stamp <= 0:
        raise MessageError("stamp_zero", f"the stamp is {stamp} ns: the driver does not stamp its messages")
    return stamp


def frame_of(msg: Any) -> str:
    """Frame of a message: its header's, or its `frame_id` (foxglove_msgs)."""
    return frame_name(msg.header.frame_id if hasattr(msg, "header") else msg.frame_id)


def frame_name(frame_id: Any) -> str:
    """Name of a frame as tf2 has it; tf1 wrote a leading slash, and some drivers still do."""
    return str(frame_id).lstrip("/")


def time_message(types: MessageTypes, stamp: int) -> Any:
    """builtin_interfaces/Time of `stamp` ns, clipped to what int32 seconds can hold."""
    sec, nanosec = divmod(max(0, stamp), SECOND_NS)
    return types.new("builtin_interfaces/msg/Time", sec=min(sec, MAX_SEC), nanosec=nanosec)


def duration_message(types: MessageTypes, seconds: float) -> Any:
    """builtin_interfaces/Duration of `seconds`, clipped to what int32 seconds can hold."""
    sec, nanosec = divmod(round(max(-float(MAX_SEC), min(seconds, float(MAX_SEC))) * SECOND_NS), SECOND_NS)
    return types.new("builtin_interfaces/msg/Duration", sec=sec, nanosec=nanosec)


def header_message(types: MessageTypes, stamp: int, frame_id: str) -> Any:
    """std_msgs/Header with `stamp` ns."""
    return types.new("std_msgs/msg/Header", stamp=time_message(types, stamp), frame_id=frame_id)
