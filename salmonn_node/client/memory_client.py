"""For planners: ask the memory in one line, with the answer as a plain value."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future

from salmonn_interfaces.action import Ask, Watch
from salmonn_interfaces.srv import ClearMemory, Query
from salmonn_node.client.action_client import ThreadedActionClient
from salmonn_node.client.qos import MANY_AT_ONCE
from salmonn_node.messages import RosTypes, answer_from_message, question_to_message
from salmonn_node.messages.base import duration_message, stamp_ns, time_message
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Question

# The node replies by the deadline; the way there and back takes a little more.
REPLY_SLACK_S = 1.0
PATIENCE_S = 10.0
AGAIN_S = 2.0  # a request that changes nothing is sent again when no reply has come for so long
WATCH_LOOK_S = 0.2  # so often a watch looks at `cancel`, and whether the node is still there
STARTUP = {"unconfigured": Transition.TRANSITION_CONFIGURE, "inactive": Transition.TRANSITION_ACTIVATE}


@dataclass(frozen=True)
class Watched:
    """How a watch ended.

    Attributes:
        became_true: `answer` says yes, with evidence.
        answer: the last evaluation; error_code CANCELED, NOT_ACTIVE, ... when the watch ended early.
        evaluations: how often the question was asked.
    """

    became_true: bool
    answer: Answer
    evaluations: int = 0


class Memory:
    """A salmonn node, as a planner sees it.

    Works whether or not `node` is being spun: a node without an executor is spun here while a call waits.

        memory = Memory(node)
        answer = memory.ask("where is the red box?", answer_type=AnswerType.POSITION, timeout_s=5.0)
        if answer.error_code == ErrorCode.NONE and answer.outcome == Outcome.ANSWERED:
            go_to(answer.pose)

    Args:
        node: any node of the caller.
        server: name of the salmonn node.
    """

    def __init__(self, node: Node, server: str = "salmonn") -> None:
        self._node = node
        self._types = RosTypes()
        group = ReentrantCallbackGroup()
        self._query = node.create_client(Query, f"{server}/query", qos_profile=MANY_AT_ONCE, callback_group=group)
        self._clear = node.create_client(ClearMemory, f"{server}/clear_memory", callback_group=group)
        self._change_state = node.create_client(ChangeState, f"{server}/change_state", callback_group=group)
        self._ask = ThreadedActionClient(node, Ask, f"{server}/ask", callback_group=group)
        self._watch = ThreadedActionClient(node, Watch, f"{server}/watch", callback_group=group)
        # The last of all, see _reach.
        self._get_state = node.create_client(GetState, f"{server}/get_state", callback_group=group)
        self._met = False
        self._server = server
        # One for all calls: a future remembers the executor that it was made under.
        self._own = SingleThreadedExecutor(context=node.context)

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
        """Ask and wait; the fields are those of Question. Never later than `timeout_s` and a second.

        Nothing is raised for what a robot meets every day: a missing node, a late or a canceled answer are Answers
        with NOT_ACTIVE, TIMEOUT and CANCELED. With `on_text` or `cancel` the action is used, else the service.
        """
        question = Question(
            text,
            answer_type,
            tuple(choices),
            after_ns,
            before_ns,
            tuple(sources),
            target_frame,
            timeout_s,
            max_evidence,
            want_thumbnails,
        )
        message = question_to_message(self._types, question)
        deadline = time.monotonic() + timeout_s
        if on_text is None and cancel is None:
            return self._ask_service(message, deadline)
        return self._ask_action(message, deadline, on_text or (lambda _: None), cancel or threading.Event())

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
        """Wait until a yes-or-no question becomes true of what is newly observed: "tell me when ...".

        Args:
            text: the question, such as "is the door open?".
            after_ns: memory from this stamp on is looked at once at the start; 0: only what comes from now on.
            until_ns: ROS time at which to give up; 0: never, only `cancel` ends it.
            period_s: time between looks, at least 0.1; 0: the node's `watch_period_s`.
            sources: cameras and microphones to look at; empty means all.
            timeout_s: deadline of one look, and how long a missing node is waited for.
            on_evaluation: called after looks with their number and the stamp up to which all has been looked at.
            cancel: ends the watch.
        """
        deadline = time.monotonic() + timeout_s
        if not self._reach(self._watch.server_is_ready, self._watch.wait_for_server, deadline):
            missing = Answer(error_code=ErrorCode.NOT_ACTIVE, error_msg=f"no action server {self._server}/watch")
            return Watched(False, missing)
        goal_message = Watch.Goal(
            question=question_to_message(
                self._types, Question(text, AnswerType.BINARY, (), after_ns, 0, tuple(sources), timeout_s=timeout_s)
            ),
            period=duration_message(self._types, period_s),
            until=time_message(self._types, until_ns),
        )

        def feedback(msg: Any) -> None:
            on_evaluation(msg.feedback.evaluations, stamp_ns(msg.feedback.evaluated_until))

        sent = self._watch.send_goal_async(goal_message, feedback)
        goal = self._wait(sent, deadline + REPLY_SLACK_S)
        if goal is None or not goal.accepted:
            return Watched(False, Answer(error_code=ErrorCode.TIMEOUT, error_msg="no reply from the node"))
        done = goal.get_result_async()
        while not done.done() and not (cancel is not None and cancel.is_set()):
            self._wait(done, time.monotonic() + WATCH_LOOK_S)
            if not self._watch.server_is_ready():
                break
        if not done.done():
            self._wait(goal.cancel_goal_async(), time.monotonic() + REPLY_SLACK_S)
        end = self._wait(done, time.monotonic() + REPLY_SLACK_S)
        if end is None:
            return Watched(False, Answer(error_code=ErrorCode.NOT_ACTIVE, error_msg="the node is gone"))
        return Watched(end.result.became_true, answer_from_message(end.result.answer), end.result.evaluations)

    def clear(self, timeout_s: float = 5.0) -> str:
        """Forget everything; returns the new memory's id. Raises RuntimeError when the node refuses or is absent."""
        response = self._call(self._clear, ClearMemory.Request(confirm=True), timeout_s)
        if response is None or response.error_code:
            raise RuntimeError(response.error_msg if response else f"{self._server} does not answer")
        return str(response.memory_id)

    def state(self, timeout_s: float = 5.0) -> str:
        """Lifecycle state of the node ("active", ...), or "absent"."""
        response = self._call_until(self._get_state, GetState.Request(), time.monotonic() + timeout_s)
        return str(response.current_state.label) if response is not None else "absent"

    def startup(self, timeout_s: float = 120.0) -> None:
        """Configure and activate the node, whichever of the two is missing. Raises RuntimeError when it does not."""
        deadline = time.monotonic() + timeout_s
        found, refused = "absent", ""
        while found not in ("active", refused):
            left_s = deadline - time.monotonic()
            transition = STARTUP.get(found)
            if transition is not None:
                # A reply may get lost, or another planner may be faster: what counts is the state afterwards.
                request = ChangeState.Request(transition=Transition(id=transition))
                response = self._call(self._change_state, request, min(left_s, PATIENCE_S))
                refused = found if response is not None and not response.success else ""
            elif left_s <= 0:
                break
            elif found != "absent":
                time.sleep(0.1)  # in a transition
            found = self.state(max(0.0, min(deadline - time.monotonic(), PATIENCE_S)))
        if found != "active":
            raise RuntimeError(f"{self._server} is {found}, not active; /diagnostics says why")

    def change_state(self, transition: int, timeout_s: float = 120.0) -> bool:
        """Request a lifecycle transition (lifecycle_msgs/Transition); whether it succeeded."""
        request = ChangeState.Request(transition=Transition(id=transition))
        response = self._call(self._change_state, request, timeout_s)
        return response is not None and bool(response.success)

    # -- waiting --------------------------------------------------------------------------------------------------

    def _ask_service(self, message: Any, deadline: float) -> Answer:
        timeout_s = deadline + REPLY_SLACK_S - time.monotonic()
        response = self._call(self._query, Query.Request(question=message), timeout_s)
        return answer_from_message(response.answer) if response is not None else self._missing(self._query)

    def _ask_action(
        self, message: Any, deadline: float, on_text: Callable[[str], None], cancel: threading.Event
    ) -> Answer:
        if not self._reach(self._ask.server_is_ready, self._ask.wait_for_server, deadline):
            return Answer(error_code=ErrorCode.NOT_ACTIVE, error_msg=f"no action server {self._server}/ask")
        last = ""

        def feedback(msg: Any) -> None:
            nonlocal last
            if msg.feedback.partial_text != last:
                last = msg.feedback.partial_text
                on_text(last)

        late = Answer(error_code=ErrorCode.TIMEOUT, error_msg="no reply from the node")
        goal = self._wait(self._ask.send_goal_async(Ask.Goal(question=message), feedback), deadline)
        if goal is None or not goal.accepted:
            return late
        done = goal.get_result_async()
        while not done.done() and time.monotonic() < deadline + REPLY_SLACK_S:
            if cancel.is_set():
                self._wait(goal.cancel_goal_async(), deadline + REPLY_SLACK_S)
                break
            self._wait(done, min(deadline + REPLY_SLACK_S, time.monotonic() + 0.05))
        result = self._wait(done, deadline + REPLY_SLACK_S)
        return answer_from_message(result.result.answer) if result is not None else late

    def _missing(self, client: Any) -> Answer:
        if client.service_is_ready():
            return Answer(error_code=ErrorCode.TIMEOUT, error_msg="no reply from the node")
        return Answer(error_code=ErrorCode.NOT_ACTIVE, error_msg=f"no service {client.srv_name}")

    def _reach(self, is_ready: Callable[[], bool], wait: Callable[[float], bool], deadline: float) -> bool:
        """Wait until a server is there and knows all our endpoints; False at the deadline.

        Discovery is not symmetric: a service can be ready here while the node has not yet heard of the reader of its
        replies, and then a reply is lost without a word. Endpoints become known in the order in which they were made,
        so a reply to the client that was made last means that those to all others will arrive.
        """
        if not is_ready():
            self._met = False  # a node that comes anew has to hear of us anew
        if not wait(max(0.0, deadline - time.monotonic())):
            return False
        if not self._met:
            self._met = self._call_until(self._get_state, GetState.Request(), deadline) is not None
        return self._met

    def _call_until(self, client: Any, request: Any, deadline: float) -> Any:
        """Response to a request that changes nothing: it is sent again now and then; None at the deadline."""
        first, sent = Future(), []

        def arrived(future: Future) -> None:
            if not first.done() and not future.cancelled():
                first.set_result(future.result())

        while client.wait_for_service(max(0.0, deadline - time.monotonic())):
            sent.append(client.call_async(request))
            sent[-1].add_done_callback(arrived)
            self._wait(first, min(deadline, time.monotonic() + AGAIN_S))
            if first.done() or time.monotonic() >= deadline:
                break
        for future in sent:
            if not future.done():
                client.remove_pending_request(future)
        return first.result() if first.done() else None

    def _call(self, client: Any, request: Any, timeout_s: float) -> Any:
        deadline = time.monotonic() + timeout_s
        if not self._reach(client.service_is_ready, client.wait_for_service, deadline):
            return None
        future = client.call_async(request)
        response = self._wait(future, deadline)
        if response is None:
            client.remove_pending_request(future)
        return response

    def _wait(self, future: Future, deadline: float) -> Any:
        """Result of a future, None at the deadline (time.monotonic)."""
        if future.done():
            return future.result()
        if self._node.executor is None:
            self._own.add_node(self._node)
        if self._node.executor is self._own:
            self._own.spin_until_future_complete(future, max(0.0, deadline - time.monotonic()))
        else:
            done = threading.Event()
            future.add_done_callback(lambda _: done.set())
            done.wait(max(0.0, deadline - time.monotonic()))
        return future.result() if future.done() else None
