"""Client of a salmonn node: ask a question in one line and get the answer as a plain value."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.node import Node

from salmonn_interfaces.action import Ask, Watch
from salmonn_interfaces.srv import ClearMemory, Query
from salmonn_node.client.connection import Connection
from salmonn_node.client.goals import GoalLost
from salmonn_node.messages import MessageError, RosTypes, answer_from_message, question_to_message
from salmonn_node.messages.base import duration_message, stamp_ns, time_message
from salmonn_node.messages.questions import checked_seconds, checked_stamp
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Question

# The node replies by the deadline. The transport takes a little more time.
REPLY_SLACK_S = 1.0
LEAST_TIMEOUT_S = 0.001  # 0 would mean the node's default
PATIENCE_S = 10.0
STILL_THERE_S = 30.0  # how often a watch asks whether the node still has it
STARTUP = {"unconfigured": Transition.TRANSITION_CONFIGURE, "inactive": Transition.TRANSITION_ACTIVATE}


@dataclass(frozen=True)
class Watched:
    """How a watch ended.

    Attributes:
        became_true: whether `answer` says yes, with evidence.
        answer: the last answer; its error_code is CANCELED, NOT_ACTIVE, ... when the watch ended early.
        evaluations: how often the question was asked.
    """

    became_true: bool
    answer: Answer
    evaluations: int = 0


class Memory:
    """Client of a salmonn node for planners.

        memory = Memory(node)
        answer = memory.ask("where is the red box?", answer_type=AnswerType.POSITION, timeout_s=5.0)
        if answer.error_code == ErrorCode.NONE and answer.outcome == Outcome.ANSWERED:
            go_to(answer.pose)

    It has its own hidden node, spun by its own thread. So you can use it from any thread and in callbacks, whether or
    not `node` is being spun. In a callback, it blocks the callback until the answer arrives.

    Args:
        node: any node of the caller; gives context, namespace and remappings.
        server: name of the salmonn node.

    Raises:
        ValueError: `server` is not a valid node name.
    """

    # Further services of a subclass, by name; see Connection.
    more_services: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, node: Node, server: str = "salmonn") -> None:
        self._types = RosTypes()
        self._connection = Connection(node, server, self.more_services)
        self.server = server

    def close(self) -> None:
        """Remove the client from the ROS graph. Garbage collection of an unused Memory does the same."""
        self._connection.close()

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(
        self,
        text: str,
        *,
        answer_type: AnswerType = AnswerType.ANY,
        choices: Sequence[str] = (),
        after_ns: int = 0,
        before_ns: int = 0,
        sources: Sequence[str] = (),
        target_frame: str = "",
        timeout_s: float = 5.0,
        max_evidence: int = 0,
        want_thumbnails: bool = False,
        on_text: Callable[[str], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> Answer:
        """Ask a question and wait for the answer. Returns at the latest one second after `timeout_s`.

        Everyday problems raise no exception. `Answer.error_code` is NOT_ACTIVE when the node is missing or was not
        reached by the deadline, so that nothing was sent. It is TIMEOUT when the answer is late, CANCELED after a
        cancel, and INVALID_REQUEST for an invalid argument, which `error_msg` names.

        Args:
            text: the question, in plain words.
            answer_type: the type of answer that you want; with ANY the node chooses.
            choices: the options, for CHOICE only.
            after_ns: start of the window of memory to read, a header stamp; 0: the start of the memory.
            before_ns: end of the window; 0: now. If it lies ahead, the node waits for it, up to `timeout_s`.
            sources: names of cameras and microphones to read; empty: all.
            target_frame: frame for the poses of the answer; empty: the frame they were observed in.
            timeout_s: seconds until the reply.
            max_evidence: most pieces of evidence; 0: the node's `max_evidence`.
            want_thumbnails: whether evidence includes pictures.
            on_text: called in this thread with the text so far. Uses the action instead of the service.
            cancel: set it to cancel the question. Uses the action instead of the service.
        """
        question = Question(
            text,
            answer_type,
            choices,  # type: ignore[arg-type]
            after_ns,
            before_ns,
            sources,  # type: ignore[arg-type]
            target_frame,
            timeout_s,
            max_evidence,
            want_thumbnails,
        )
        try:
            message = question_to_message(self._types, question)
            deadline = time.monotonic() + checked_seconds("timeout_s", timeout_s, positive=True)
        except MessageError as error:
            return Answer(error_code=ErrorCode.INVALID_REQUEST, error_msg=str(error))
        if on_text is None and cancel is None:
            query = self._connection.query
            if not self._connection.reach(query.service_is_ready, deadline):
                return self._unreached("query", query.service_is_ready)
            self._shorten(message, deadline)
            # The reminder leaves the node no time, so it costs nothing, and its own reply is TIMEOUT.
            reminder = question_to_message(self._types, replace(question, timeout_s=LEAST_TIMEOUT_S))
            response = self._connection.ask_with_reminders(
                Query.Request(question=message), Query.Request(question=reminder), deadline, deadline + REPLY_SLACK_S
            )
            if response is None:
                return self._missing("query", query.service_is_ready)
            return answer_from_message(response.answer)
        return self._ask_action(message, deadline, on_text or (lambda _: None), cancel)

    def _ask_action(
        self, message: Any, deadline: float, on_text: Callable[[str], None], cancel: threading.Event | None
    ) -> Answer:
        last = ""

        def on_feedback(feedback: Any) -> None:
            nonlocal last
            if feedback.partial_text != last:
                last = feedback.partial_text
                on_text(last)

        client = self._connection.ask
        if not self._connection.reach(client.server_is_ready, deadline, cancel):
            return self._unreached("ask", client.server_is_ready, cancel)
        self._shorten(message, deadline)
        try:
            result = client.run(
                Ask.Goal(question=message),
                accept_by=deadline + REPLY_SLACK_S,
                due_at=deadline,
                done_by=deadline + REPLY_SLACK_S,
                slack_s=REPLY_SLACK_S,
                cancel=cancel,
                on_feedback=on_feedback,
            )
        except GoalLost:
            return self._lost()
        if result is None:
            return self._missing("ask", client.server_is_ready, cancel)
        return answer_from_message(result.answer)

    def watch(
        self,
        text: str,
        *,
        after_ns: int = 0,
        until_ns: int = 0,
        period_s: float = 0.0,
        sources: Sequence[str] = (),
        timeout_s: float = 5.0,
        on_evaluation: Callable[[int, int], None] = lambda evaluations, evaluated_until_ns: None,
        cancel: threading.Event | None = None,
    ) -> Watched:
        """Wait until the answer to a yes-or-no question about new observations is yes: "tell me when ...".

        Args:
            text: the question, such as "is the door open?".
            after_ns: the first look also covers the memory from this stamp on; 0: only new observations.
            until_ns: ROS time at which to give up; 0: never, only `cancel` ends the watch.
            period_s: seconds between looks, at least 0.1; 0: the node's `watch_period_s`.
            sources: names of cameras and microphones; empty: all.
            timeout_s: seconds for each look, and how long to wait for a missing node.
            on_evaluation: called in this thread after looks, with the number of looks and the stamp up to which
                everything has been evaluated.
            cancel: set it to end the watch.
        """
        question = Question(text, AnswerType.BINARY, (), after_ns, 0, sources, timeout_s=timeout_s)  # type: ignore[arg-type]
        try:
            goal_message = Watch.Goal(
                question=question_to_message(self._types, question),
                period=duration_message(self._types, checked_seconds("period_s", period_s)),
                until=time_message(self._types, checked_stamp("until_ns", until_ns)),
            )
            deadline = time.monotonic() + checked_seconds("timeout_s", timeout_s, positive=True)
        except MessageError as error:
            return Watched(False, Answer(error_code=ErrorCode.INVALID_REQUEST, error_msg=str(error)))
        client = self._connection.watch
        if not self._connection.reach(client.server_is_ready, deadline, cancel):
            return Watched(False, self._unreached("watch", client.server_is_ready, cancel))
        try:
            result = client.run(
                goal_message,
                accept_by=deadline + REPLY_SLACK_S,
                due_at=time.monotonic(),
                done_by=float("inf"),
                slack_s=2 * REPLY_SLACK_S,
                look_s=STILL_THERE_S,
                cancel=cancel,
                on_feedback=lambda feedback: on_evaluation(feedback.evaluations, stamp_ns(feedback.evaluated_until)),
            )
        except GoalLost:
            return Watched(False, self._lost())
        if result is None:
            return Watched(False, self._missing("watch", client.server_is_ready, cancel))
        return Watched(result.became_true, answer_from_message(result.answer), result.evaluations)

    def clear(self, timeout_s: float = 5.0) -> str:
        """Clear the memory; returns the id of the new one. Raises RuntimeError when the node refuses or is absent."""
        request = ClearMemory.Request(confirm=True)
        response = self._connection.call(self._connection.clear, request, time.monotonic() + timeout_s)
        if response is None or response.error_code:
            raise RuntimeError(response.error_msg if response else f"{self.server} does not answer")
        return str(response.memory_id)

    def state(self, timeout_s: float = 5.0) -> str:
        """Get the lifecycle state of the node ("active", ...), or "absent" if it does not reply in time."""
        deadline = time.monotonic() + timeout_s
        response = self._connection.call_until(self._connection.get_state, GetState.Request(), deadline)
        return str(response.current_state.label) if response is not None else "absent"

    def startup(self, timeout_s: float = 120.0) -> None:
        """Configure and activate the node as needed. Raises RuntimeError if it does not become active in time."""
        deadline = time.monotonic() + timeout_s
        found, refusals = "absent", 0
        while found != "active" and refusals < 2:
            left_s = deadline - time.monotonic()
            transition, success = STARTUP.get(found), None
            if left_s <= 0:
                break
            if transition is not None:
                # A reply may get lost, or another planner may be faster. So only the state afterwards counts.
                success = self.change_state(transition, min(left_s, PATIENCE_S))
            elif found != "absent":
                time.sleep(0.1)  # in a transition
            before, found = found, self.state(max(0.0, min(deadline - time.monotonic(), PATIENCE_S)))
            # After one refusal try again: perhaps another planner's transition is about to begin.
            refusals = refusals + 1 if success is False and found == before else 0
        if found != "active":
            raise RuntimeError(f"{self.server} is {found}, not active; /diagnostics says why")

    def change_state(self, transition: int, timeout_s: float = 120.0) -> bool | None:
        """Request a lifecycle transition, a constant of lifecycle_msgs/Transition.

        Returns:
            Whether it succeeded; None without a reply.
        """
        request = ChangeState.Request(transition=Transition(id=transition))
        response = self._connection.call(self._connection.change_state, request, time.monotonic() + timeout_s)
        return bool(response.success) if response is not None else None

    def _shorten(self, message: Any, deadline: float) -> None:
        """Leave the node only the time that is left, as reaching it took some."""
        left_s = max(LEAST_TIMEOUT_S, deadline - time.monotonic())
        message.timeout = duration_message(self._types, left_s)

    def _unreached(self, name: str, is_ready: Callable[[], bool], cancel: threading.Event | None = None) -> Answer:
        """An Answer that says why nothing was sent."""
        answer = self._missing(name, is_ready, cancel)
        if answer.error_code != ErrorCode.TIMEOUT:
            return answer
        text = f"{self.server} was not reached in time, so nothing was sent: it is starting, or it is held up"
        return Answer(error_code=ErrorCode.NOT_ACTIVE, error_msg=text)

    def _lost(self) -> Answer:
        """An Answer that says that the node has been restarted."""
        text = f"{self.server} was restarted and no longer has this question: ask again"
        return Answer(error_code=ErrorCode.NOT_ACTIVE, error_msg=text)

    def _missing(self, name: str, is_ready: Callable[[], bool], cancel: threading.Event | None = None) -> Answer:
        """An Answer that says why there is no reply."""
        if cancel is not None and cancel.is_set():
            return Answer(error_code=ErrorCode.CANCELED, error_msg="canceled by the caller")
        if not self._connection.is_open:
            return Answer(error_code=ErrorCode.NOT_ACTIVE, error_msg="rclpy was shut down, or this Memory was closed")
        if is_ready():
            return Answer(error_code=ErrorCode.TIMEOUT, error_msg=f"no reply from {self.server} in time")
        return Answer(error_code=ErrorCode.NOT_ACTIVE, error_msg=f"no node {self.server} offers {name}: is it running?")
