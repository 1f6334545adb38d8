"""Action `watch`, "tell me when ...": a yes-or-no question that the node asks itself until the answer is yes."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode

from salmonn_interfaces.action import Watch as WatchAction
from salmonn_node.client.qos import MANY_AT_ONCE
from salmonn_node.messages import MessageError, RosTypes, answer_to_message, question_from_message
from salmonn_node.messages.base import stamp_ns, time_message
from salmonn_node.ros.answer_topics import AnswerTopics
from salmonn_node.ros.goals import OpenGoals, never_executed, wait_until_canceling
from salmonn_node.ros.open_queue import OpenQueue
from salmonn_node.ros.watch import Watch, WatchSettings, watched_question
from salmonn_node.stream.answers import Answer, ErrorCode
from salmonn_node.stream.observations import SECOND_NS

MAX_WATCHES = 16
# The tokens of two sampled images last until the second: a little reach-back covers stamps that jitter.
OVERLAP_IMAGES = 0.5


class WatchServer:
    """Lives as long as the node. Looks are questions like others: they wait their turn, and may be BUSY.

    Args:
        node: owner of the action.
        questions: gives the queue of an active node; in words why there is none otherwise.
        observed: memory id, and the stamp up to which everything has been observed (0: nothing), in ns.
        topics: where the answer that ends a watch is shown.
    """

    def __init__(
        self,
        node: LifecycleNode,
        questions: Callable[[], OpenQueue | str],
        observed: Callable[[], tuple[str, int]],
        topics: AnswerTopics,
    ) -> None:
        self._node = node
        self._questions = questions
        self._observed = observed
        self._topics = topics
        self._types = RosTypes()
        self._goals: OpenGoals[Watch] = OpenGoals()
        self._action = ActionServer(
            node,
            WatchAction,
            "~/watch",
            execute_callback=never_executed,
            goal_callback=lambda _: GoalResponse.ACCEPT,
            handle_accepted_callback=self._on_goal,
            cancel_callback=self._on_cancel,
            callback_group=ReentrantCallbackGroup(),
            goal_service_qos_profile=MANY_AT_ONCE,
            result_service_qos_profile=MANY_AT_ONCE,
            cancel_service_qos_profile=MANY_AT_ONCE,
        )

    @property
    def open(self) -> int:
        """Number of watches under way."""
        return len(self._goals)

    def close(self, reason: str) -> None:
        """End all watches with CANCELED; more may come later."""
        for watch in self._goals.all():
            watch.end(reason)

    def _on_goal(self, goal: Any) -> None:
        questions = self._questions()
        if isinstance(questions, str):
            return self._refuse(goal, ErrorCode.NOT_ACTIVE, questions)
        try:
            watch = self._watch(goal.request, questions)
        except MessageError as error:
            questions.queue.note_refusal(str(error))
            return self._refuse(goal, ErrorCode.INVALID_REQUEST, str(error))
        except Exception as error:
            self._node.get_logger().error(f"a watch could not be taken:\n{traceback.format_exc()}")
            return self._refuse(goal, ErrorCode.MODEL_ERROR, f"{type(error).__name__}: {error}")
        if not self._goals.add(goal, watch, limit=MAX_WATCHES):
            return self._refuse(goal, ErrorCode.BUSY, f"{MAX_WATCHES} watches are open; no more are taken")
        if self._goals.canceled(goal):
            watch.end("canceled by the caller")
        if isinstance(self._questions(), str):  # the node was deactivated before `close` could see this watch
            watch.end("the node was deactivated")
        threading.Thread(target=self._run, args=(goal, watch), name="watch", daemon=True).start()
        return None

    def _watch(self, request: WatchAction.Goal, questions: OpenQueue) -> Watch:
        """The watch that a goal asks for; raises MessageError naming a field that is wrong."""
        period_s = stamp_ns(request.period) / SECOND_NS or self._node.get_parameter("watch_period_s").value
        until_ns = stamp_ns(request.until)
        question = watched_question(question_from_message(request.question), period_s, until_ns)
        question = questions.complete(question)
        overlap_ns = round(OVERLAP_IMAGES / self._node.get_parameter("frame_rate_hz").value * SECOND_NS)
        settings = WatchSettings(period_s, until_ns, questions.timeout_s(question), overlap_ns)
        now_ns = self._node.get_clock().now
        return Watch(question, questions.queue, settings, self._observed, lambda: now_ns().nanoseconds)

    def _refuse(self, goal: Any, code: ErrorCode, reason: str) -> None:
        message = answer_to_message(self._types, Answer(error_code=code, error_msg=reason))
        self._goals.end(goal, False, WatchAction.Result(answer=message))

    def _on_cancel(self, goal: Any) -> CancelResponse:
        watch = self._goals.cancel(goal)
        if watch is not None:
            watch.end("canceled by the caller")
        return CancelResponse.ACCEPT

    def _run(self, goal: Any, watch: Watch) -> None:
        try:
            watch.run(lambda seen_ns: self._tell(goal, watch, seen_ns))
            message = answer_to_message(self._types, watch.answer)
        except Exception as error:
            # A goal is owed a result.
            self._node.get_logger().error(f"a watch failed:\n{traceback.format_exc()}")
            failed = Answer(error_code=ErrorCode.MODEL_ERROR, error_msg=f"{type(error).__name__}: {error}")
            message = answer_to_message(self._types, failed)
        if watch.became_true:
            self._topics.publish(goal.request.question, message)
        if self._goals.canceled(goal):
            wait_until_canceling(goal)
        result = WatchAction.Result(became_true=watch.became_true, answer=message, evaluations=watch.looks)
        self._goals.end(goal, watch.complete, result)

    def _tell(self, goal: Any, watch: Watch, seen_ns: int) -> None:
        feedback = WatchAction.Feedback(
            evaluated_until=time_message(self._types, seen_ns),
            confidence=float(watch.answer.confidence),
            evaluations=watch.looks,
        )
        if goal.is_active:
            goal.publish_feedback(feedback)
