"""Goals of one action of a salmonn node: send a goal, ask again for what is overdue, wait for the result."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from action_msgs.msg import GoalInfo, GoalStatus
from action_msgs.srv import CancelGoal
from rclpy.action import ActionClient
from rclpy.action.client import ClientGoalHandle
from rclpy.task import Future
from unique_identifier_msgs.msg import UUID

from salmonn_node.client.goal_ids import new_goal_id
from salmonn_node.client.qos import ACTION_QOS, OVERDUE_S, REMINDER
from salmonn_node.client.spinner import POLL_S, Spinner

MOST_WAITING = 8  # requests for one result that may still be answered


class GoalLost(Exception):
    """The node does not have the goal that it was sent: it has been restarted."""


class GoalSender:
    """Sends goals of one action. You may use it in any thread.

    A message that is lost holds up all later ones of its writer (see REMINDER). So a goal that is not accepted soon is
    sent again under the same id, which the node refuses if it has it; an overdue result is requested again, and so is a
    cancel. They are sent by service clients of their own.

    Args:
        spinner: owner and spinner of the node on which the clients are made.
        action: type of the action.
        name: full name of the action.
    """

    def __init__(self, spinner: Spinner, action: Any, name: str) -> None:
        self._spinner, node = spinner, spinner.node
        self._client = ActionClient(node, action, name, **ACTION_QOS)
        self._goal_type, self._result_type = action.Impl.SendGoalService, action.Impl.GetResultService
        hidden = f"{name}/_action"
        self._goal_again = node.create_client(self._goal_type, f"{hidden}/send_goal", qos_profile=REMINDER)
        self._result_again = node.create_client(self._result_type, f"{hidden}/get_result", qos_profile=REMINDER)
        self._cancel_again = node.create_client(CancelGoal, f"{hidden}/cancel_goal", qos_profile=REMINDER)

    def server_is_ready(self) -> bool:
        """Whether the action's server is visible from here."""
        return bool(self._client.server_is_ready())

    def run(
        self,
        goal_message: Any,
        *,
        accept_by: float,
        due_at: float,
        done_by: float,
        slack_s: float,
        look_s: float = OVERDUE_S,
        cancel: threading.Event | None,
        on_feedback: Callable[[Any], None],
    ) -> Any:
        """Send a goal and wait for its result; None when no reply came in time or the node is gone.

        A goal that is accepted too late is canceled.

        Args:
            goal_message: the goal.
            accept_by: time.monotonic() by which the node must accept the goal.
            due_at: time.monotonic() from which the result is overdue.
            look_s: how often an overdue result is requested again, seconds.
            done_by: time.monotonic() by which the result must arrive.
            slack_s: how long the reply to a cancel may take, seconds.
            cancel: set it to cancel the goal; the result is then that of the canceled goal.
            on_feedback: called with each feedback, in the calling thread.

        Raises:
            GoalLost: the node has been restarted.
        """
        news: queue.SimpleQueue[Any] = queue.SimpleQueue()
        goal_id = UUID(uuid=list(new_goal_id(self._spinner.node.get_fully_qualified_name())))
        goal = self._accepted_goal(goal_message, goal_id, accept_by, news.put)
        if goal is None:
            return None
        done: Future = Future()
        asked: list[Future] = []

        def arrived(future: Future) -> None:
            if not done.done() and not future.cancelled():
                done.set_result(future.result())
                news.put(None)

        run, wait = self._spinner.run, self._spinner.wait
        run(lambda: goal.get_result_async().add_done_callback(arrived))
        canceled = False
        while not done.done() and time.monotonic() < done_by:
            if cancel is not None and cancel.is_set() and not canceled:
                canceled, done_by = True, min(done_by, time.monotonic() + slack_s)
                due_at, look_s = time.monotonic(), OVERDUE_S
                run(goal.cancel_goal_async)
            if not self._spinner.is_open:
                break
            if not self.server_is_ready():
                # Its last reply may be on the way. If another node is there by then, that one lacks the goal.
                if not wait(done, min(done_by, time.monotonic() + slack_s)) and self.server_is_ready():
                    raise GoalLost
                break
            if time.monotonic() >= due_at + look_s:
                due_at += look_s
                if canceled:
                    asked.append(self._cancel_again.call_async(CancelGoal.Request(goal_info=GoalInfo(goal_id=goal_id))))
                asked.append(self._result_again.call_async(self._result_type.Request(goal_id=goal_id)))
                asked[-1].add_done_callback(arrived)
                self._forget(asked[:-MOST_WAITING])
                del asked[:-MOST_WAITING]
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
        self._forget(asked)
        if done.done() and done.result().status == GoalStatus.STATUS_UNKNOWN:
            raise GoalLost
        return done.result().result if done.done() else None

    def _accepted_goal(
        self, message: Any, goal_id: UUID, accept_by: float, on_feedback: Callable[[Any], None]
    ) -> ClientGoalHandle | None:
        """Send a goal, again and again, until the node has accepted it; None if it does not in time."""
        # rclpy's action client is not safe if one thread sends while another one receives, so send in the spinner.
        replies = [self._spinner.run(self._client.send_goal_async, message, on_feedback, goal_id)]
        while (goal := self._goal_of(replies, goal_id)) is None:
            if time.monotonic() >= accept_by or all(reply.done() for reply in replies) or not self._spinner.is_open:
                for reply in replies:
                    reply.add_done_callback(lambda _: self._cancel_late(replies, goal_id))
                return None
            if not self._spinner.wait(replies[-1], min(accept_by, time.monotonic() + OVERDUE_S)):
                replies.append(self._goal_again.call_async(self._goal_type.Request(goal_id=goal_id, goal=message)))
        self._forget(replies[1:])
        return goal

    def _goal_of(self, replies: list[Future], goal_id: UUID) -> ClientGoalHandle | None:
        """The goal if the node has it. Of several requests with one id the node accepts one and refuses the others."""
        got = [r.result() for r in replies if r.done() and r.exception() is None and r.result() is not None]
        known = next((reply for reply in got if reply.accepted), got[0] if got and len(replies) > 1 else None)
        if known is None or isinstance(known, ClientGoalHandle) and known.accepted:
            return known
        response = self._goal_type.Response(accepted=True, stamp=known.stamp)
        return ClientGoalHandle(self._client, goal_id, response)

    def _cancel_late(self, replies: list[Future], goal_id: UUID) -> None:
        """Cancel a goal that was accepted after its caller had given up."""
        goal = self._goal_of(replies, goal_id)
        if goal is not None:
            goal.cancel_goal_async()

    def _forget(self, futures: list[Future]) -> None:
        """Wait no longer for responses to what was sent again."""
        for client in (self._goal_again, self._result_again, self._cancel_again):
            for future in futures:
                client.remove_pending_request(future)
