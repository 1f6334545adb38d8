"""The bytes of a recording's messages as message objects, each channel by the definition that the recording carries."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

from salmonn_node.messages.bag_types import bag_typestore
from salmonn_node.replay.storage_file import Channel

Decode = Callable[[bytes], Any]
ENCODINGS = ("cdr", "ros1")
_IDL_PARTS = "=" * 80 + "\n"


def typestore_of(channel: Channel) -> Any:
    """A rosbags typestore that knows the channel's type; definitions that the recording lacks are the project's own.

    Raises:
        ValueError: the channel's messages are neither CDR nor ROS 1, or nobody defines their type.
    """
    return _typestore(channel.encoding, channel.msgtype, channel.definition, channel.definition_kind)


@functools.lru_cache(maxsize=256)
def _typestore(encoding: str, msgtype: str, definition: str, kind: str) -> Any:
    if encoding not in ENCODINGS:
        raise ValueError(f"its messages are {encoding}, expected {' or '.join(ENCODINGS)}")
    fault = "the recording has no definition of it"
    if definition:
        try:
            store = get_typestore(Stores.EMPTY)
            store.register(_parsed(definition, msgtype, kind))
            # Fails where the parser took the beginning of a damaged text, or a part of the definition is missing.
            store.generate_msgdef(msgtype, ros_version=1 if encoding == "ros1" else 2)
            return store
        except Exception as error:  # rosbags' parser and code generator raise whatever they run into
            fault = f"its definition cannot be read: {type(error).__name__}"
    known = bag_typestore()
    if encoding == "cdr" and msgtype in known.types:
        return known
    raise ValueError(f"type {msgtype} is not known, {fault}")


def decoder_of(channel: Channel) -> Decode:
    """What turns the channel's bytes into messages; it raises ValueError for bytes that are no such message.

    Raises:
        ValueError: as `typestore_of`.
    """
    store = typestore_of(channel)
    deserialize = store.deserialize_cdr if channel.encoding == "cdr" else store.deserialize_ros1

    def decode(raw: bytes) -> Any:
        try:
            return deserialize(raw, channel.msgtype)
        except Exception as error:  # as above: struct, index and Unicode errors of the generated parser
            raise ValueError(f"no {channel.msgtype}: {type(error).__name__}: {error}") from None

    return decode


def _parsed(definition: str, msgtype: str, kind: str) -> Any:
    if kind != "idl":
        return get_types_from_msg(definition, msgtype)
    types: dict[str, Any] = {}
    # rosbag2 writes one part for each type; others write a single one.
    for part in definition.split(_IDL_PARTS):
        text = part.split("\n", 1)[1] if part.startswith("IDL: ") else part
        if text.strip():
            types.update(get_types_from_idl(text))
    return types
