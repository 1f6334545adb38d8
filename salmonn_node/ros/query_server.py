"""The doors for questions, under the name of the node: service `query` and action `ask`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from action_msgs.msg import GoalStatus
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from rclpy.service_introspection import ServiceIntrospectionState

from salmonn_interfaces.action import Ask
from salmonn_interfaces.srv import Query
from salmonn_node.answering.question_queue import QUEUED, QuestionQueue, Ticket
from salmonn_node.client.qos import MANY_AT_ONCE
from salmonn_node.messages import MessageError, RosTypes, answer_to_message, question_from_message
from salmonn_node.ros.answer_topics import AnswerTopics
from salmonn_node.ros.deferred import DeferredReply, create_deferred_service
from salmonn_node.stream.answers import Answer, ErrorCode, Question

# What an active node gives: the queue, a question filled with the node's defaults, and its deadline in seconds.
Desk = tuple[QuestionQueue, Callable[[Question], Question], Callable[[Question], float]]

INTROSPECTION = {
    "off": ServiceIntrospectionState.OFF,
    "metadata": ServiceIntrospectionState.METADATA,
    "contents": ServiceIntrospectionState.CONTENTS,
}


class QueryServer:
    """Lives as long as the node, so that a question in any lifecycle state is answered, if only with NOT_ACTIVE.

    Args:
        node: owner of service and action.
        desk: gives the Desk of an active node, else the reason why there is none.
        topics: where each question is shown with its answer.
        introspection: one of INTROSPECTION: what `~/query/_service_event` tells of each call.
    """

    def __init__(
        self,
        node: LifecycleNode,
        desk: Callable[[], Desk | str],
        topics: AnswerTopics,
        introspection: str = "off",
    ) -> None:
        self._desk = desk
        self._topics = topics
        self._types = RosTypes()
        self._group = ReentrantCallbackGroup()
        self._goals: dict[bytes, Ticket] = {}
        service = create_deferred_service(node, Query, "~/query", self._on_query, self._group)
        # A wrong word fails configure, which names it.
        state = INTROSPECTION.get(introspection, ServiceIntrospectionState.OFF)
        service.configure_introspection(node.get_clock(), QoSProfile(depth=100), state)
        self._action = ActionServer(
            node,
            Ask,
            "~/ask",
            execute_callback=self._on_executed,
            goal_callback=lambda _: GoalResponse.ACCEPT,
            handle_accepted_callback=self._on_goal,
            cancel_callback=self._on_cancel,
            callback_group=self._group,
            goal_service_qos_profile=MANY_AT_ONCE,
            result_service_qos_profile=MANY_AT_ONCE,
            cancel_service_qos_profile=MANY_AT_ONCE,
        )

    # -- service --------------------------------------------------------------------------------------------------

    def _on_query(self, request: Query.Request) -> DeferredReply:
        deferred = DeferredReply()
        self._submit(request.question, lambda message: deferred.set(Query.Response(answer=message)))
        return deferred

    # -- action ---------------------------------------------------------------------------------------------------

    def _on_goal(self, goal: Any) -> None:
        """Queue an accepted goal; it is executed, that is finished, when its answer is there."""
        key = bytes(goal.goal_id.uuid)
        feedback = Ask.Feedback(stage=QUEUED)
        lock = threading.Lock()

        def tell(**changes: Any) -> None:
            with lock:
                for name, value in changes.items():
                    setattr(feedback, name, value)
                if goal.is_active:
                    goal.publish_feedback(feedback)

        def finish(message: Any) -> None:
            self._goals.pop(key, None)
            try:
                goal.execute(lambda handle: _finish(handle, message))
            except rclpy_implementation.RCLError:
                # A cancel came between execute's look at the state and its change of it; the second look sees that.
                goal.execute(lambda handle: _finish(handle, message))

        ticket = self._submit(
            goal.request.question,
            finish,
            on_text=lambda piece: tell(partial_text=feedback.partial_text + piece),
            on_stage=lambda stage: tell(stage=stage),
            register=lambda ticket: self._goals.__setitem__(key, ticket),
        )
        if ticket is not None and ticket.replied:
            self._goals.pop(key, None)

    def _on_cancel(self, goal: Any) -> CancelResponse:
        ticket = self._goals.get(bytes(goal.goal_id.uuid))
        desk = self._desk()
        if ticket is None or isinstance(desk, str):
            return CancelResponse.REJECT
        # The goal must be CANCELING before its result is set, and it is so only after this callback has returned.
        threading.Thread(target=self._cancel_when_canceling, args=(goal, ticket, desk[0]), daemon=True).start()
        return CancelResponse.ACCEPT

    def _cancel_when_canceling(self, goal: Any, ticket: Ticket, queue: QuestionQueue) -> None:
        ticket.cancel.set()
        give_up = time.monotonic() + 1.0
        while not goal.is_cancel_requested and goal.is_active and time.monotonic() < give_up:
            time.sleep(0.002)
        queue.cancel(ticket)

    def _on_executed(self, goal: Any) -> Ask.Result:
        """Never called: goals are executed with their result at hand."""
        raise AssertionError("a goal was executed without its answer")

    # -- both -----------------------------------------------------------------------------------------------------

    def _submit(
        self,
        message: Any,
        reply: Callable[[Any], None],
        on_text: Callable[[str], None] | None = None,
        on_stage: Callable[[int], None] = lambda stage: None,
        register: Callable[[Ticket], None] = lambda ticket: None,
    ) -> Ticket | None:
        """Check a question and queue it; `reply` gets the Answer message, once, from any thread."""
        received = time.monotonic()

        def send(answer: Answer) -> None:
            answer = replace(answer, latency_s=time.monotonic() - received)
            answer_message = answer_to_message(self._types, answer)
            reply(answer_message)
            self._topics.publish(message, answer_message)

        desk = self._desk()
        if isinstance(desk, str):
            send(Answer(error_code=ErrorCode.NOT_ACTIVE, error_msg=desk))
            return None
        queue, complete, timeout_s = desk
        try:
            question = complete(question_from_message(message))
        except MessageError as error:
            queue.note_refusal(str(error))
            send(Answer(error_code=ErrorCode.INVALID_REQUEST, error_msg=str(error)))
            return None
        ticket = Ticket(question, received + timeout_s(question), send, on_text, on_stage, received)
        register(ticket)
        queue.submit(ticket)
        return ticket


def _finish(goal: Any, message: Any) -> Ask.Result:
    """Set the goal's end from the answer's code."""
    if goal.status == GoalStatus.STATUS_CANCELING:
        goal.canceled()
    elif message.error_code == int(ErrorCode.NONE):
        goal.succeed()
    else:
        goal.abort()
    return Ask.Result(answer=message)
