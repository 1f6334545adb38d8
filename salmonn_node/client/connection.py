"""Connection to one salmonn node: wait until it is reachable, send requests and goals, wait for replies."""

from __future__ import annotations

import queue
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, count
from math import inf
from typing import Any

from action_msgs.msg import GoalStatus
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.task import Future
from unique_identifier_msgs.msg import UUID

from salmonn_interfaces.action import Ask, Watch
from salmonn_interfaces.srv import ClearMemory, Query
from salmonn_node.client.qos import ACTION_QOS, MANY_AT_ONCE
from salmonn_node.client.spinner import Spinner

NODE_NAME = re.compile(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)
POLL_S = 0.05  # how often a waiting thread checks `cancel` and looks for a missing server
AGAIN_S = 2.0  # a request that changes nothing is repeated if no reply has come for this long
OVERDUE_S = 0.3  # what is overdue is asked for again after each such time


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

    def send(self, client: Any, request: Any, deadline: float, *, due_at: float = inf, reminder: Any = None) -> Any:
        """Send one request to a service that `reach` has reached; None if no response came by the deadline.

        Args:
            client: the client of the service.
            request: the request.
            deadline: time.monotonic() at which to give up.
            due_at: time.monotonic() from which the response is overdue.
            reminder: request to send while it is overdue. Its own response counts, too, if it comes first.
        """
        reminders = ((due_at + n * OVERDUE_S, reminder) for n in count(1))
        return self._first_response(client, chain([(0.0, request)], reminders), deadline)

    def call_until(self, client: Any, request: Any, deadline: float, cancel: threading.Event | None = None) -> Any:
        """Send a request that changes nothing, repeatedly, until a response comes; None at the deadline or cancel."""
        start = time.monotonic()
        return self._first_response(client, ((start + n * AGAIN_S, request) for n in count()), deadline, cancel)

    def _first_response(
        self,
        client: Any,
        requests: Iterator[tuple[float, Any]],
        deadline: float,
        cancel: threading.Event | None = None,
    ) -> Any:
        """Send each request at its time, while the service is there, until one of them has a response."""
        first: Future = Future()
        sent: list[Future] = []

        def arrived(future: Future) -> None:
            if not first.done() and not future.cancelled():
                first.set_result(future.result())

        due_at, request = next(requests)
        while not first.done() and self._spinner.is_open and not (cancel is not None and cancel.is_set()):
            now = time.monotonic()
            if now >= due_at and client.service_is_ready():
                sent.append(client.call_async(request))
                sent[-1].add_done_callback(arrived)
                due_at, request = next(requests)
                due_at = max(due_at, now + OVERDUE_S)  # no burst if the service was away for long
            if now >= deadline:
                break
            self._spinner.wait(first, min(deadline, due_at, now + POLL_S))
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

        A lost packet is sent again only with the middleware's next heartbeat, which may take 3 s. A further message
        carries a heartbeat. So a goal that is not accepted soon is sent again under the same id, which the node
        refuses if it has it, and an overdue result is requested again. A goal that is accepted too late is canceled.

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
        goal_id, patience_s = UUID(uuid=list(uuid.uuid4().bytes)), OVERDUE_S
        replies = [run(client.send_goal_async, goal_message, news.put, goal_id)]
        while not any(map(_accepted, replies)):
            if time.monotonic() >= accept_by or all(reply.done() for reply in replies) or not self._spinner.is_open:
                for reply in replies:
                    reply.add_done_callback(_cancel_late)
                return None
            if not wait(replies[0], min(accept_by, time.monotonic() + patience_s)) and self._spinner.is_open:
                replies.append(run(client.send_goal_async, goal_message, None, goal_id))
                patience_s *= 2
        goal = next(filter(_accepted, replies)).result()
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


def _accepted(reply: Future) -> bool:
    """Whether the node has accepted a goal."""
    return bool(reply.done() and reply.exception() is None and reply.result() is not None and reply.result().accepted)


def _cancel_late(reply: Future) -> None:
    """Cancel a goal that was accepted after its caller had given up."""
    if _accepted(reply):
        reply.result().cancel_goal_async()
