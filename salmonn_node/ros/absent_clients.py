"""Finds open goals whose client is gone: its process died, or it was closed before it heard of its goal."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rclpy.node import Node

from salmonn_node.client.goal_ids import is_of, names_client

# A client's node that is missing in the graph this long is gone. The middleware notices a dead process after some 20 s,
# and needs a moment to make a new one known.
ABSENT_S = 10.0


class AbsentClients:
    """Remembers when the client of each goal was last in the graph. Only ids that name their client are judged.

    Args:
        node: sees the graph.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._present: dict[bytes, float] = {}

    def look(self, goal_ids: Iterable[bytes]) -> list[bytes]:
        """The goals of `goal_ids`, all open ones, whose client is gone."""
        known = [goal_id for goal_id in goal_ids if names_client(goal_id)]
        if not known:
            self._present.clear()
            return []
        names = [f"{space.rstrip('/')}/{name}" for name, space in self._node.get_node_names_and_namespaces()]
        now = time.monotonic()
        self._present = {
            goal_id: now if any(is_of(goal_id, name) for name in names) else self._present.get(goal_id, now)
            for goal_id in known
        }
        return [goal_id for goal_id, present in self._present.items() if now - present > ABSENT_S]
