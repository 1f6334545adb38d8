"""Action `watch`, "tell me when ...": a question asked again over what is newly observed, until it becomes true."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from action_msgs.msg import GoalStatus
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode

from salmonn_interfaces.action import Watch
from salmonn_node.answering.question_queue import QuestionQueue, Ticket
from salmonn_node.client.qos import MANY_AT_ONCE
from salmonn_node.messages import MessageError, RosTypes, answer_to_message, question_from_message
from salmonn_node.messages.base import stamp_ns, time_message
from salmonn_node.ros.answer_topics import AnswerTopics
from salmonn_node.ros.query_server import Desk
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Outcome, Question
from salmonn_node.stream.observations import SECOND_NS

MAX_WATCHES = 16
MIN_PERIOD_S = 0.1
CLOCK_LOOK_S = 0.5  # so often the ROS clock is looked at while a watch waits: simulated time wakes nobody
# Tokens of two sampled images last until the second: a little reach-back covers stamps that jitter.
OVERLAP_IMAGES = 0.5
# These say nothing about later evaluations; any other error ends the watch.
PASSING = (ErrorCode.NONE, ErrorCode.BUSY, ErrorCode.TIMEOUT, ErrorCode.EMPTY_MEMORY)
# After these the window is looked at again, together with what has come since.
UNREAD = (ErrorCode.BUSY, ErrorCode.TIMEOUT)


@dataclass(eq=False)
class _Watch:
    """One goal on its way.

    Attributes:
        period_s, until_ns: of the goal; `until_ns` is ROS time, 0 for ever.
        timeout_s: deadline of each evaluation.
        wake: set when the watch is to end early, for the reason `end_reason`.
        canceled: by the caller.
        complete: it became true, or `until` passed.
        ticket: the evaluation that is under way, or the last one.
    """

    goal: Any
    question: Question
    queue: QuestionQueue
    period_s: float
    until_ns: int
    timeout_s: float
    wake: threading.Event = field(default_factory=threading.Event)
    end_reason: str = ""
    canceled: bool = False
    complete: bool = False
    ticket: Ticket | None = None
    evaluations: int = 0
    answer: Answer = field(default_factory=lambda: Answer(answer_type=AnswerType.BINARY, outcome=Outcome.NOT_OBSERVED))

    def end(self, reason: str) -> None:
        self.end_reason = reason
        self.wake.set()
        if self.ticket is not None:
            self.queue.cancel(self.ticket, reason)


class WatchServer:
    """Lives as long as the node. Evaluations are questions like others: they wait their turn, and may be BUSY.

    Args:
        node: owner of the action.
        desk: gives the Desk of an active node, else the reason why there is none.
        observed: memory id, and the stamp up to which everything has been observed (0: nothing), in ns.
        topics: where the answer that ends a watch is shown.
    """

    def __init__(
        self,
        node: LifecycleNode,
        desk: Callable[[], Desk | str],
        observed: Callable[[], tuple[str, int]],
        topics: AnswerTopics,
    ) -> None:
        self._node = node
        self._desk = desk
        self._observed = observed
        self._topics = topics
        self._types = RosTypes()
        self._watches: dict[bytes, _Watch] = {}
        self._lock = threading.Lock()
        self._action = ActionServer(
            node,
            Watch,
            "~/watch",
            execute_callback=_never,
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
        return len(self._watches)

    def close(self, reason: str) -> None:
        """End all watches with CANCELED; more may come later."""
        with self._lock:
            watches = list(self._watches.values())
        for watch in watches:
            watch.end(reason)

    # -- goals ----------------------------------------------------------------------------------------------------

    def _on_goal(self, goal: Any) -> None:
        desk = self._desk()
        if isinstance(desk, str):
            return self._refuse(goal, ErrorCode.NOT_ACTIVE, desk)
        queue, complete, timeout_s = desk
        request = goal.request
        default_s = self._node.get_parameter("watch_period_s").value
        period_s, until_ns = stamp_ns(request.period) / SECOND_NS or default_s, stamp_ns(request.until)
        try:
            question = complete(_checked(question_from_message(request.question), period_s, until_ns))
        except MessageError as error:
            queue.note_refusal(str(error))
            return self._refuse(goal, ErrorCode.INVALID_REQUEST, str(error))
        watch = _Watch(goal, question, queue, period_s, until_ns, timeout_s(question))
        with self._lock:
            full = len(self._watches) >= MAX_WATCHES
            if not full:
                self._watches[bytes(goal.goal_id.uuid)] = watch
        if full:
            return self._refuse(goal, ErrorCode.BUSY, f"{MAX_WATCHES} watches are open, more are not taken")
        threading.Thread(target=self._run, args=(watch,), name="watch", daemon=True).start()
        return None

    def _refuse(self, goal: Any, code: ErrorCode, reason: str) -> None:
        message = answer_to_message(self._types, Answer(error_code=code, error_msg=reason))
        _execute(goal, False, Watch.Result(answer=message))

    def _on_cancel(self, goal: Any) -> CancelResponse:
        with self._lock:
            watch = self._watches.get(bytes(goal.goal_id.uuid))
        if watch is None:
            return CancelResponse.REJECT
        watch.canceled = True
        watch.end("canceled by the caller")
        return CancelResponse.ACCEPT

    # -- evaluation -----------------------------------------------------------------------------------------------

    def _run(self, watch: _Watch) -> None:
        try:
            self._evaluate_all(watch)
        except Exception as error:
            # A goal is owed a result.
            self._node.get_logger().error(f"a watch failed: {type(error).__name__}: {error}")
            watch.answer = Answer(error_code=ErrorCode.MODEL_ERROR, error_msg=f"{type(error).__name__}: {error}")
        with self._lock:
            self._watches.pop(bytes(watch.goal.goal_id.uuid), None)
        self._finish(watch)

    def _evaluate_all(self, watch: _Watch) -> None:
        """Evaluate what is new once a period, until it is true, fails, `until` has passed, or the watch is ended."""
        memory_id, seen_ns = self._observed()
        next_ns = watch.question.after_ns or seen_ns + 1  # what is stamped from here on is new
        overlap_ns = round(OVERLAP_IMAGES / self._node.get_parameter("frame_rate_hz").value * SECOND_NS)
        due = time.monotonic()
        while not watch.wake.is_set():
            over = 0 < watch.until_ns <= self._node.get_clock().now().nanoseconds
            if over or time.monotonic() >= due:
                due = max(due + watch.period_s, time.monotonic())
                found_id, seen_ns = self._observed()
                if found_id != memory_id:
                    memory_id, next_ns = found_id, watch.question.after_ns or 1  # all of a new memory is new
                end_ns = min(seen_ns, watch.until_ns or seen_ns)
                if end_ns >= next_ns:
                    after_ns = max(watch.question.after_ns, next_ns - overlap_ns, 1)
                    # An end that is just now would be waited for until the next observation: it is left open.
                    window = replace(watch.question, after_ns=after_ns, before_ns=end_ns if end_ns < seen_ns else 0)
                    answer = self._ask(watch, window)
                    watch.complete = _is_true(answer)
                    if watch.complete or answer.error_code not in PASSING:
                        return
                    if answer.error_code not in UNREAD:
                        next_ns = end_ns + 1
                    self._tell(watch, next_ns - 1)
            if over:
                watch.complete = True
                return
            if isinstance(self._desk(), str):
                watch.end("the node was deactivated")
            watch.wake.wait(min(CLOCK_LOOK_S, max(0.0, due - time.monotonic())))

    def _ask(self, watch: _Watch, question: Question) -> Answer:
        done = threading.Event()
        received = time.monotonic()

        def reply(answer: Answer) -> None:
            watch.answer = replace(answer, latency_s=time.monotonic() - received)
            done.set()

        ticket = Ticket(question, received + watch.timeout_s, reply, received=received)
        watch.queue.submit(ticket)
        watch.ticket = ticket
        if watch.wake.is_set():  # ended before there was a ticket to cancel
            watch.queue.cancel(ticket, watch.end_reason)
        done.wait()
        watch.evaluations += 1
        return watch.answer

    def _tell(self, watch: _Watch, seen_ns: int) -> None:
        feedback = Watch.Feedback(
            evaluated_until=time_message(self._types, seen_ns),
            confidence=float(watch.answer.confidence),
            evaluations=watch.evaluations,
        )
        if watch.goal.is_active:
            watch.goal.publish_feedback(feedback)

    def _finish(self, watch: _Watch) -> None:
        goal, answer = watch.goal, watch.answer
        if watch.wake.is_set() and not watch.complete:
            answer = Answer(error_code=ErrorCode.CANCELED, error_msg=watch.end_reason)
        message = answer_to_message(self._types, answer)
        became_true = _is_true(answer)
        if became_true:
            self._topics.publish(goal.request.question, message)
        # The goal must be CANCELING before its result is set, and it is so only after the cancel callback returned.
        give_up = time.monotonic() + 1.0
        while watch.canceled and not goal.is_cancel_requested and goal.is_active and time.monotonic() < give_up:
            time.sleep(0.002)
        result = Watch.Result(became_true=became_true, answer=message, evaluations=watch.evaluations)
        _execute(goal, watch.complete, result)


def _checked(question: Question, period_s: float, until_ns: int) -> Question:
    """The question as BINARY; raises MessageError for what cannot be watched for."""
    if question.answer_type not in (AnswerType.BINARY, AnswerType.ANY):
        raise MessageError("invalid_request", f"answer_type is {question.answer_type.name}; only BINARY becomes true")
    if question.before_ns:
        raise MessageError("invalid_request", "before is set; a watch ends at `until`")
    if period_s < MIN_PERIOD_S:
        raise MessageError("invalid_request", f"period is {period_s} s, at least {MIN_PERIOD_S} s is taken")
    if until_ns < 0:
        raise MessageError("invalid_request", f"until ({until_ns} ns) must not be negative")
    return replace(question, answer_type=AnswerType.BINARY)


def _is_true(answer: Answer) -> bool:
    return answer.error_code == ErrorCode.NONE and answer.outcome == Outcome.ANSWERED and answer.binary


def _execute(goal: Any, complete: bool, result: Any) -> None:
    """End a goal: canceled when the caller wanted that, succeeded when the watch is complete, else aborted."""

    def end(handle: Any) -> Any:
        if handle.status == GoalStatus.STATUS_CANCELING:
            handle.canceled()
        elif complete:
            handle.succeed()
        else:
            handle.abort()
        return result

    try:
        goal.execute(end)
    except rclpy_implementation.RCLError:
        # A cancel came between execute's look at the state and its change of it; the second look sees that.
        goal.execute(end)


def _never(goal: Any) -> Watch.Result:
    """Never called: goals are executed with their result at hand."""
    raise AssertionError("a goal was executed without its result")
