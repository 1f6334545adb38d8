"""Other nodes of the same full name: callers of a service reach all of them, and take whichever reply comes first."""

from __future__ import annotations

from rclpy.node import Node


class Namesakes:
    """Looks for other nodes of the node's own full name in the graph."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._told = 0

    def look(self) -> str:
        """What is wrong, in words; "" when no other node has this name. A change is also logged."""
        own = (self._node.get_name(), self._node.get_namespace())
        others = max(0, self._node.get_node_names_and_namespaces().count(own) - 1)
        found = ""
        if others:
            nodes = "another node has" if others == 1 else f"{others} other nodes have"
            found = (
                f"{nodes} this node's name, {self._node.get_fully_qualified_name()}: a caller is answered by any of "
                "them. Give each its own name or namespace (-r __node:=NAME, -r __ns:=/ROBOT). A node that was killed "
                "is still seen for some 20 s"
            )
        if others != self._told:
            log = self._node.get_logger()
            if found:
                log.warning(found)
            else:
                log.info("no other node has this node's name any more")
            self._told = others
        return found
