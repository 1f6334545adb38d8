"""Goal ids that name the client's node, so that the salmonn node can end a watch whose client is gone."""

from __future__ import annotations

import hashlib
import secrets

VERSION, VARIANT = 0x80, 0x80  # a UUID of version 8 of RFC 9562, whose other bits are free
MARK = b"slm"  # rclcpp's ids are 16 random bytes: without a mark, one of 64 of them would pass for one of these
RANDOM_BYTES = 9
NAME_BYTES = 16 - RANDOM_BYTES - len(MARK)


def new_goal_id(client: str) -> bytes:
    """A new goal id.

    Args:
        client: full name of the client's node, with its namespace.

    Returns:
        A UUID of version 8, 16 bytes: random ones, MARK, and the hash of the name.
    """
    random = bytearray(secrets.token_bytes(RANDOM_BYTES))
    random[6] = VERSION | random[6] & 0x0F
    random[8] = VARIANT | random[8] & 0x3F
    return bytes(random) + MARK + _hash(client)


def is_of(goal_id: bytes, client: str) -> bool:
    """Whether a goal id names this client's node."""
    return names_client(goal_id) and goal_id[-NAME_BYTES:] == _hash(client)


def names_client(goal_id: bytes) -> bool:
    """Whether a goal id names any client's node. Ids by other clients, such as `ros2 action send_goal`, do not."""
    version, variant = goal_id[6] & 0xF0, goal_id[8] & 0xC0
    return (version, variant) == (VERSION, VARIANT) and goal_id[RANDOM_BYTES:-NAME_BYTES] == MARK


def _hash(client: str) -> bytes:
    return hashlib.sha256(client.encode()).digest()[:NAME_BYTES]
