"""Service `~/query` and action `~/ask`: take questions and send the answers."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from rclpy.service_introspection import ServiceIntrospectionState

from salmonn_interfaces.action import Ask
from salmonn_interfaces.srv import Query
from salmonn_node.answering.question_queue import QuestionQueue
from salmonn_node.answering.ticket import QUEUED, Ticket, failed
from salmonn_node.client.qos import ACTION_QOS
from salmonn_node.messages import MessageError, RosTypes, answer_to_message, question_from_message
from salmonn_node.ros.answer_topics import AnswerTopics
from salmonn_node.ros.deferred import DeferredReply, create_deferred_service
from salmonn_node.ros.goals import OpenGoals, never_executed, wait_until_canceling
from salmonn_node.ros.open_queue import OpenQueue
from salmonn_node.stream.answers import Answer, ErrorCode

INTROSPECTION = {
    "off": ServiceIntrospectionState.OFF,
    "metadata": ServiceIntrospectionState.METADATA,
    "contents": ServiceIntrospectionState.CONTENTS,
}


class QueryServer:
    """The servers of `~/query` and `~/ask`. They exist as long as the node and reply NOT_ACTIVE if it is not active.

    Args:
        node: owner of service and action.
        questions: returns the queue of an active node, or a text that says why there is none.
        topics: publishes each question with its answer.
        introspection: a key of INTROSPECTION: what `~/query/_service_event` publishes for each call.
    """

    def __init__(
        self,
        node: LifecycleNode,
        questions: Callable[[], OpenQueue | str],
        topics: AnswerTopics,
        introspection: str = "off",
    ) -> None:
        self._log = node.get_logger()
        self._questions = questions
        self._topics = topics
        self._types = RosTypes()
        self._goals: OpenGoals[tuple[Ticket, QuestionQueue]] = OpenGoals()
        group = ReentrantCallbackGroup()
        service = create_deferred_service(node, Query, "~/query", self._on_query, group)
        # An invalid value makes configure fail with a message.
        state = INTROSPECTION.get(introspection, ServiceIntrospectionState.OFF)
        service.configure_introspection(node.get_clock(), QoSProfile(depth=100), state)
        self._action = ActionServer(
            node,
            Ask,
            "~/ask",
            execute_callback=never_executed,
            goal_callback=lambda _: GoalResponse.ACCEPT,
            handle_accepted_callback=self._on_goal,
            cancel_callback=self._on_cancel,
            callback_group=group,
            **ACTION_QOS,
        )

    # -- service --------------------------------------------------------------------------------------------------

    def _on_query(self, request: Query.Request) -> DeferredReply:
        deferred = DeferredReply()
        self._submit(request.question, lambda message: deferred.set(Query.Response(answer=message)))
        return deferred

    # -- action ---------------------------------------------------------------------------------------------------

    def _on_goal(self, goal: Any) -> None:
        """Queue an accepted goal. It ends when its answer is ready."""
        feedback = Ask.Feedback(stage=QUEUED)
        lock = threading.Lock()

        def tell(**changes: Any) -> None:
            with lock:
                for name, value in changes.items():
                    setattr(feedback, name, value)
                if goal.is_active:
                    goal.publish_feedback(feedback)

        def register(ticket: Ticket, queue: QuestionQueue) -> None:
            self._goals.add(goal, (ticket, queue))
            if self._goals.canceled(goal):
                self._cancel(goal, ticket, queue)

        self._submit(
            goal.request.question,
            lambda answer: self._goals.end(goal, answer.error_code == int(ErrorCode.NONE), Ask.Result(answer=answer)),
            on_text=lambda piece: tell(partial_text=feedback.partial_text + piece),
            on_stage=lambda stage: tell(stage=stage),
            register=register,
        )

    def _on_cancel(self, goal: Any) -> CancelResponse:
        work = self._goals.cancel(goal)
        if work is not None:
            if work[0].replied:
                return CancelResponse.REJECT
            self._cancel(goal, *work)
        return CancelResponse.ACCEPT

    def _cancel(self, goal: Any, ticket: Ticket, queue: QuestionQueue) -> None:
        def reply() -> None:
            wait_until_canceling(goal)
            queue.cancel(ticket)

        threading.Thread(target=reply, name="cancel", daemon=True).start()

    # -- both -----------------------------------------------------------------------------------------------------

    def _submit(
        self,
        message: Any,
        reply: Callable[[Any], None],
        on_text: Callable[[str], None] | None = None,
        on_stage: Callable[[int], None] = lambda stage: None,
        register: Callable[[Ticket, QuestionQueue], None] = lambda ticket, queue: None,
    ) -> None:
        """Check a question and queue it. `reply` is called once, from any thread, with the Answer message."""
        received = time.monotonic()

        def send(answer: Answer) -> None:
            answer = replace(answer, latency_s=time.monotonic() - received)
            try:
                answer_message = answer_to_message(self._types, answer)
            except Exception as error:
                # Send a reply in any case, even if the answer does not fit into its message.
                self._log.error(f"an answer could not be sent:\n{traceback.format_exc()}")
                answer_message = answer_to_message(self._types, failed(error))
            reply(answer_message)
            self._topics.publish(message, answer_message)

        questions = self._questions()
        if isinstance(questions, str):
            return send(Answer(error_code=ErrorCode.NOT_ACTIVE, error_msg=questions))
        try:
            question = questions.complete(question_from_message(message))
            ticket = Ticket(question, received + questions.timeout_s(question), send, on_text, on_stage, received)
            register(ticket, questions.queue)
            questions.queue.submit(ticket)
        except MessageError as error:
            questions.queue.note_refusal(str(error))
            send(Answer(error_code=ErrorCode.INVALID_REQUEST, error_msg=str(error)))
        except Exception as error:
            self._log.error(f"a question could not be taken:\n{traceback.format_exc()}")
            send(failed(error))
        return None
