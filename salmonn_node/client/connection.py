"""Connection to one salmonn node: wait until it is reachable, send requests and goals, wait for replies."""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from action_msgs.msg import GoalStatus
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.task import Future

from salmonn_interfaces.action import Ask, Watch
from salmonn_interfaces.srv import ClearMemory, Query
from salmonn_node.client.qos import ACTION_QOS, MANY_AT_ONCE
from salmonn_node.client.spinner import Spinner

NODE_NAME = re.compile(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)
POLL_S = 0.05  # how often a waiting thread checks `cancel` and looks for a missing server
AGAIN_S = 2.0  # a request that changes nothing is repeated if no reply has come for this long
OVERDUE_S = 0.3  # an overdue result is requested again after each such time


class Connection:
    """The ROS clients for one salmonn node. You may use them in any thread and in callbacks.

    Args:
        node: the caller's node; names are resolved and remapped like its own.
        server: name of the salmonn node.

        more: name -> type of further services, for a client that manages the memory.

    Attributes:
        query, clear, change_state, get_state: service clients.
        ask, watch: action clients.
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
        self.clear = own.create_client(ClearMemory, names["clear_memory"], qos_profile=MANY_AT_ONCE)
        self.change_state = own.create_client(ChangeState, names["change_state"])
        self.ask = ActionClient(own, Ask, names["ask"], **ACTION_QOS)
        self.watch = ActionClient(own, Watch, names["watch"], **ACTION_QOS)
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
        return self.send(client, request, deadline) if self.reach(client.service_is_ready, deadline) else None

    def send(self, client: Any, request: Any, deadline: float) -> Any:
        """Send one request to a service that `reach` has reached; None if no response came by the deadline."""
        future = client.call_async(request)
        if self._spinner.wait(future, deadline):
            return future.result()
        client.remove_pending_request(future)
        return None

    def call_until(self, client: Any, request: Any, deadline: float, cancel: threading.Event | None = None) -> Any:
        """Send a request that changes nothing, repeatedly, until a response comes; None at the deadline or cancel."""
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
        due_at: float,
        done_by: float,
        slack_s: float,
        cancel: threading.Event | None,
        on_feedback: Callable[[Any], None],
    ) -> Any:
        """Send a goal and wait for its result; None when no reply came in time or the node is gone.

        A lost packet is sent again only with the middleware's next heartbeat, which may take 3 s. So if the result is
        overdue, it is requested again; that changes nothing in the node, and carries a heartbeat. A goal that is
        accepted too late is canceled.

        Args:
            client: `ask` or `watch`.
            goal_message: the goal.
            accept_by: time.monotonic() by which the node must accept the goal.
            done_by: time.monotonic() by which the result must arrive.
            due_at: time.monotonic() from which the result is overdue.
            slack_s: how long the reply to a cancel may take, seconds.
            cancel: set it to cancel the goal; the result is then that of the canceled goal.
            on_feedback: called with each feedback, in the calling thread.
        """
        news: queue.SimpleQueue[Any] = queue.SimpleQueue()
        # rclpy's action client is not safe if one thread sends while another one receives, so send in the spinner.
        run, wait = self._spinner.run, self._spinner.wait
        sent = run(client.send_goal_async, goal_message, news.put)
        if not wait(sent, accept_by):
            sent.add_done_callback(_cancel_late)
            return None
        goal = sent.result()
        if not goal.accepted:
            return None
        done: Future = Future()

        def arrived(future: Future) -> None:
            if not done.done() and not future.cancelled() and future.result().status != GoalStatus.STATUS_UNKNOWN:
                done.set_result(future.result())
                news.put(None)

        def request_result() -> None:
            goal.get_result_async().add_done_callback(arrived)

        run(request_result)
        canceled = False
        while not done.done() and time.monotonic() < done_by:
            if cancel is not None and cancel.is_set() and not canceled:
                canceled, done_by = True, min(done_by, time.monotonic() + slack_s)
                due_at = min(due_at, time.monotonic())
                run(goal.cancel_goal_async)
            if not self._spinner.is_open:
                break
            if not client.server_is_ready():
                wait(done, min(done_by, time.monotonic() + slack_s))  # its last reply may be on the way
                break
            if time.monotonic() >= due_at + OVERDUE_S:
                due_at += OVERDUE_S
                run(request_result)
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


def _cancel_late(sent: Future) -> None:
    """Cancel a goal that was accepted after its caller had given up."""
    if not sent.cancelled() and sent.exception() is None and sent.result() is not None and sent.result().accepted:
        sent.result().cancel_goal_async()
