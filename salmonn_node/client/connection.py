"""Requests to one salmonn node: find it, meet it, send, wait for the reply."""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable
from typing import Any

from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.task import Future

from salmonn_interfaces.action import Ask, Watch
from salmonn_interfaces.srv import ClearMemory, Query
from salmonn_node.client.qos import MANY_AT_ONCE
from salmonn_node.client.spinner import Spinner

NODE_NAME = re.compile(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)
POLL_S = 0.05  # so often a wait looks at its event `cancel`, and for a server that is not there yet
AGAIN_S = 2.0  # a request that changes nothing is sent again when no reply has come for so long


class Connection:
    """The clients of one salmonn node; any thread may use them, also in a callback.

    Args:
        node: of the caller; names are resolved and remapped as its own.
        server: name of the salmonn node. Raises ValueError when it cannot be a name.
    """

    def __init__(self, node: Node, server: str) -> None:
        if not isinstance(server, str) or not NODE_NAME.fullmatch(server):
            raise ValueError(f"{server!r} is not the name of a ROS node, such as salmonn or /robot1/salmonn")
        topics = ("query", "clear_memory", "change_state", "ask", "watch", "get_state", "memory_status")
        names = {name: node.resolve_service_name(f"{server}/{name}") for name in topics}
        self._status_topic = names["memory_status"]
        self._spinner = Spinner(node)
        own = self._spinner.node
        self.query = own.create_client(Query, names["query"], qos_profile=MANY_AT_ONCE)
        self.clear = own.create_client(ClearMemory, names["clear_memory"])
        self.change_state = own.create_client(ChangeState, names["change_state"])
        self.ask = ActionClient(own, Ask, names["ask"])
        self.watch = ActionClient(own, Watch, names["watch"])
        # The last of all, see reach.
        self.get_state = own.create_client(GetState, names["get_state"])
        self._met: frozenset[bytes] = frozenset()

    def close(self) -> None:
        """Let go of the clients."""
        self._spinner.close()

    @property
    def is_open(self) -> bool:
        """Whether anything can be sent: not closed, and rclpy not shut down."""
        return self._spinner.is_open

    # -- the node -------------------------------------------------------------------------------------------------

    def reach(self, is_ready: Callable[[], bool], deadline: float, cancel: threading.Event | None = None) -> bool:
        """Wait until a server is there and knows all our endpoints; False at the deadline, and after `cancel`.

        Discovery is not symmetric: a service can be ready here while the node has not yet heard of the reader of its
        replies, and then a reply is lost without a word. Endpoints become known in the order in which they were made,
        so a reply to the client that was made last means that those to all others will arrive. A node that was
        started again has to hear of us again; its publishers have new ids.
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
        """Response to one request, None at the deadline (time.monotonic)."""
        if not self.reach(client.service_is_ready, deadline):
            return None
        future = client.call_async(request)
        if self._spinner.wait(future, deadline):
            return future.result()
        client.remove_pending_request(future)
        return None

    def call_until(self, client: Any, request: Any, deadline: float, cancel: threading.Event | None = None) -> Any:
        """Response to a request that changes nothing: it is sent again now and then; None at the deadline."""
        first: Future = Future()
        sent: list[Future] = []

        def arrived(future: Future) -> None:
            if not first.done() and not future.cancelled():
                first.set_result(future.result())

        again = 0.0
        while not first.done() and self._spinner.is_open and not (cancel is not None and cancel.is_set()):
            now = time.monotonic()
            if now >= again and client.service_is_ready():
                sent.append(client.call_async(request))
                sent[-1].add_done_callback(arrived)
                again = now + AGAIN_S
            if now >= deadline:
                break
            self._spinner.wait(first, min(deadline, now + POLL_S))
        for future in sent:
            if not future.done():
                client.remove_pending_request(future)
        return first.result() if first.done() else None

    # -- actions --------------------------------------------------------------------------------------------------

    def run_goal(
        self,
        client: ActionClient,
        goal_message: Any,
        *,
        accept_by: float,
        done_by: float,
        slack_s: float,
        cancel: threading.Event | None,
        on_feedback: Callable[[Any], None],
    ) -> Any:
        """Send a goal and wait for its result; None when no reply came in time or the node has gone.

        Args:
            client: `ask` or `watch`.
            goal_message: the goal.
            accept_by: time.monotonic() by which the node accepts it.
            done_by: time.monotonic() by which the result is there.
            slack_s: how long the reply to a cancel may take.
            cancel: ends the goal; the result says what came of it.
            on_feedback: called with each feedback, in the thread that called this.
        """
        news: queue.SimpleQueue[Any] = queue.SimpleQueue()
        # rclpy's action client is not made for a thread that sends while another one takes the response.
        run, wait = self._spinner.run, self._spinner.wait
        sent = run(client.send_goal_async, goal_message, news.put)
        if not wait(sent, accept_by) or not sent.result().accepted:
            return None
        goal = sent.result()
        done = run(goal.get_result_async)
        done.add_done_callback(lambda _: news.put(None))
        canceled = False
        while not done.done() and time.monotonic() < done_by:
            if cancel is not None and cancel.is_set() and not canceled:
                canceled, done_by = True, min(done_by, time.monotonic() + slack_s)
                run(goal.cancel_goal_async)
            if not self._spinner.is_open:
                break
            if not client.server_is_ready():
                wait(done, min(done_by, time.monotonic() + slack_s))  # its last reply may be on the way
                break
            try:
                message = news.get(timeout=max(0.0, min(POLL_S, done_by - time.monotonic())))
            except queue.Empty:
                continue
            if message is not None:
                on_feedback(message.feedback)
        while not news.empty():
            message = news.get()
            if message is not None:
                on_feedback(message.feedback)
        return done.result().result if done.done() else None
