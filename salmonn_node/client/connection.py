"""Connection to one salmonn node: wait until it is reachable, send requests, wait for responses."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, count
from math import inf
from typing import Any

from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.node import Node
from rclpy.task import Future

from salmonn_interfaces.action import Ask, Watch
from salmonn_interfaces.srv import ClearMemory, Query
from salmonn_node.client.goals import GoalSender
from salmonn_node.client.qos import MANY_AT_ONCE, OVERDUE_S, REMINDER
from salmonn_node.client.spinner import POLL_S, Spinner

NODE_NAME = re.compile(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)
AGAIN_S = 2.0  # a request that changes nothing is repeated if no reply has come for this long


class Connection:
    """The ROS clients for one salmonn node. You may use them in any thread and in callbacks.

    Args:
        node: the caller's node; names are resolved and remapped like its own.
        server: name of the salmonn node.

        more: name -> type of further services, for a client that manages the memory.

    Attributes:
        query, clear, change_state, get_state: service clients.
        query_reminder: a second client of the service query, which sends what reminds of an overdue response.
        ask, watch: send goals.
        more: clients of the further services, by name.

    Raises:
        ValueError: `server` is not a valid node name.
    """

    def __init__(self, node: Node, server: str, more: Mapping[str, Any] | None = None) -> None:
        if not isinstance(server, str) or not NODE_NAME.fullmatch(server):
            raise ValueError(f"{server!r} is not the name of a ROS node, such as salmonn or /robot1/salmonn")
        topics = ("query", "clear_memory", "change_state", "ask", "watch", "get_state", "memory_status")
        names = {name: node.resolve_service_name(f"{server}/{name}") for name in topics}
        self._status_topic = names["memory_status"]
        self._spinner = Spinner(node)
        own = self._spinner.node
        self.query = own.create_client(Query, names["query"], qos_profile=MANY_AT_ONCE)
        self.query_reminder = own.create_client(Query, names["query"], qos_profile=REMINDER)
        self.clear = own.create_client(ClearMemory, names["clear_memory"], qos_profile=MANY_AT_ONCE)
        self.change_state = own.create_client(ChangeState, names["change_state"])
        self.ask = GoalSender(self._spinner, Ask, names["ask"])
        self.watch = GoalSender(self._spinner, Watch, names["watch"])
        self.more = {
            name: own.create_client(kind, node.resolve_service_name(f"{server}/{name}"), qos_profile=MANY_AT_ONCE)
            for name, kind in (more or {}).items()
        }
        # Created last, because `reach` depends on the order.
        self.get_state = own.create_client(GetState, names["get_state"])
        self._met: frozenset[bytes] = frozenset()

    def close(self) -> None:
        """Destroy the clients."""
        self._spinner.close()

    @property
    def is_open(self) -> bool:
        """Whether requests can be sent: neither this connection nor rclpy is shut down."""
        return self._spinner.is_open

    # -- the node -------------------------------------------------------------------------------------------------

    def reach(self, is_ready: Callable[[], bool], deadline: float, cancel: threading.Event | None = None) -> bool:
        """Wait until a server is ready and has discovered all our endpoints; False at the deadline and after `cancel`.

        Discovery is not symmetric. A service can be ready here before the node has discovered the reader of its
        replies, and then a reply is lost silently. The node discovers endpoints in the order in which they were made.
        So once it has replied to the client that was made last, its replies to all other clients arrive too. After a
        restart, the node must discover us again; a restart shows in new ids of its publishers.

        Args:
            is_ready: whether the server is visible from here.
            deadline: time.monotonic() at which to give up.
            cancel: set it to stop waiting.
        """
        while not (self._spinner.is_open and is_ready()):
            if time.monotonic() >= deadline or not self._spinner.is_open or (cancel is not None and cancel.is_set()):
                return False
            time.sleep(max(0.0, min(POLL_S, deadline - time.monotonic())))
        found = self._publishers()
        if found and found <= self._met:
            return True
        if self.call_until(self.get_state, GetState.Request(), deadline, cancel) is None:
            return False
        self._met = found
        return True

    def _publishers(self) -> frozenset[bytes]:
        infos = self._spinner.node.get_publishers_info_by_topic(self._status_topic)
        return frozenset(bytes(info.endpoint_gid) for info in infos)

    # -- services -------------------------------------------------------------------------------------------------

    def call(self, client: Any, request: Any, deadline: float) -> Any:
        """Send one request and wait for the response; None at the deadline (time.monotonic)."""
        if not self.reach(client.service_is_ready, deadline):
            return None
        return self._first_response(iter([(0.0, client, request)]), deadline)

    def ask_with_reminders(self, request: Any, reminder: Any, due_at: float, deadline: float) -> Any:
        """Send a request to `query`, which `reach` has reached; None if no response came by the deadline.

        Args:
            request: the request.
            reminder: request to send again and again while the response is overdue. Its own response counts, too.
            due_at: time.monotonic() from which the response is overdue.
            deadline: time.monotonic() at which to give up.
        """
        reminders = ((due_at + n * OVERDUE_S, self.query_reminder, reminder) for n in count(1))
        return self._first_response(chain([(0.0, self.query, request)], reminders), deadline)

    def call_until(self, client: Any, request: Any, deadline: float, cancel: threading.Event | None = None) -> Any:
        """Send a request that changes nothing, repeatedly, until a response comes; None at the deadline or cancel."""
        start = time.monotonic()
        return self._first_response(((start + n * AGAIN_S, client, request) for n in count()), deadline, cancel)

    def _first_response(
        self, requests: Iterator[tuple[float, Any, Any]], deadline: float, cancel: threading.Event | None = None
    ) -> Any:
        """Send each request by its client at its time, while the service is there, until one of them has a response."""
        first: Future = Future()
        sent: list[tuple[Any, Future]] = []

        def arrived(future: Future) -> None:
            if not first.done() and not future.cancelled():
                first.set_result(future.result())

        due_at, client, request = next(requests)
        while not first.done() and self._spinner.is_open and not (cancel is not None and cancel.is_set()):
            now = time.monotonic()
            if now >= due_at and client.service_is_ready():
                sent.append((client, client.call_async(request)))
                sent[-1][1].add_done_callback(arrived)
                due_at, client, request = next(requests, (inf, client, request))
                due_at = max(due_at, now + OVERDUE_S)  # no burst if the service was away for long
            if now >= deadline:
                break
            self._spinner.wait(first, min(deadline, due_at, now + POLL_S))
        for sender, future in sent:
            if not future.done():
                sender.remove_pending_request(future)
        return first.result() if first.done() else None
