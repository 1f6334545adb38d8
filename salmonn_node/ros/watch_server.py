"""Action `~/watch`, "tell me when ...": the node asks itself a yes-or-no question until the answer is yes."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode

from salmonn_interfaces.action import Watch as WatchAction
from salmonn_node.client.qos import ACTION_QOS
from salmonn_node.messages import MessageError, RosTypes, answer_to_message, question_from_message
from salmonn_node.messages.base import stamp_ns, time_message
from salmonn_node.ros.absent_clients import AbsentClients
from salmonn_node.ros.answer_topics import AnswerTopics
from salmonn_node.ros.goals import OpenGoals, never_executed, wait_until_canceling
from salmonn_node.ros.open_queue import OpenQueue
from salmonn_node.ros.watch import Watch, WatchSettings, watched_question
from salmonn_node.stream.answers import Answer, ErrorCode
from salmonn_node.stream.observations import SECOND_NS

MAX_WATCHES = 16
# A look reaches back by this many image periods, for stamps that jitter. More is not needed, because the tokens of a
# temporal patch last until its second image.
OVERLAP_IMAGES = 0.5


class WatchServer:
    """The server of `~/watch`. It exists as long as the node. Looks are ordinary questions and may get BUSY.

    Args:
        node: owner of the action.
        questions: returns the queue of an active node, or a text that says why there is none.
        observed: returns the memory's id and the stamp in ns up to which everything is observed (0: nothing).
        topics: publishes the answer that ends a watch.
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
        self._absent = AbsentClients(node)
        self._action = ActionServer(
            node,
            WatchAction,
            "~/watch",
            execute_callback=never_executed,
            goal_callback=lambda _: GoalResponse.ACCEPT,
            handle_accepted_callback=self._on_goal,
            cancel_callback=self._on_cancel,
            callback_group=ReentrantCallbackGroup(),
            **ACTION_QOS,
        )

    @property
    def open(self) -> int:
        """Number of open watches."""
        return len(self._goals)

    def close(self, reason: str) -> None:
        """End all open watches with CANCELED. New ones may start later."""
        for watch in self._goals.all().values():
            watch.end(reason)

    def end_abandoned(self) -> None:
        """End the watches whose client is gone. Without `until`, nothing else would end them. Call this regularly."""
        watches = self._goals.all()
        for goal_id in self._absent.look(watches):
            self._node.get_logger().warning("a watch ends: its client is gone")
            watches[goal_id].end("its client is gone")

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
        """Make the watch that a goal requests. Raises MessageError naming a field that is wrong."""
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
            # Every goal must get a result.
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
