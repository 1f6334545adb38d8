"""The managed node: configure loads, activate listens and answers, deactivate stops listening, cleanup frees."""

from __future__ import annotations

import contextlib
import functools
import gc
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace

import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import ClockChange, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions

from salmonn_node.answering.question_queue import QuestionQueue, Ticket
from salmonn_node.ros import parameters as node_parameters
from salmonn_node.ros import spinning
from salmonn_node.ros.answer_topics import AnswerTopics
from salmonn_node.ros.diagnostics import Diagnostics
from salmonn_node.ros.inputs import Inputs
from salmonn_node.ros.memory_services import MemoryServices
from salmonn_node.ros.parameters import NodeParameters
from salmonn_node.ros.query_server import Desk, QueryServer
from salmonn_node.ros.status import StatusPublisher
from salmonn_node.ros.watch_server import WatchServer
from salmonn_node.runtime.build import Backend, build_backend
from salmonn_node.stream.answers import Answer, Question

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
# Services, timers and transitions each need a thread now and then; messages are taken in by the thread that spins.
EXECUTOR_THREADS = 4
STATUS_PERIOD_S = 1.0
SWITCH_INTERVAL_S = 0.0005


def _settle_heap() -> None:
    """Collect garbage now, and let no later collection walk through what is there: the network and the libraries.

    A full collection stops all threads, a quarter of a second on two slow cores; meanwhile more images of a 30 Hz
    camera arrive than the history keeps.
    """
    gc.unfreeze()  # what an earlier memory left behind
    gc.collect()
    gc.freeze()


Transition = Callable[["MemoryNode", LifecycleState], TransitionCallbackReturn]


def _reported(transition: Transition) -> Transition:
    """Log and keep what a transition raises; rclpy would turn it into ERROR without a word."""

    @functools.wraps(transition)
    def wrapper(self: MemoryNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(self, state)
        except Exception as error:
            self._problem = f"{transition.__name__} failed: {type(error).__name__}: {error}"
            self.get_logger().error(traceback.format_exc())
            return TransitionCallbackReturn.ERROR

    return wrapper


class MemoryNode(LifecycleNode):
    """Sees and hears through topics, remembers, and answers questions.

    Args:
        name: node name.
        build: makes the backend in configure.
        arguments: for rclpy.Node, such as `parameter_overrides` and `cli_args`.
    """

    def __init__(
        self,
        name: str = "salmonn",
        *,
        build: Callable[[NodeParameters], Backend] = build_backend,
        **arguments: object,
    ) -> None:
        super().__init__(name, **arguments)
        self._build = build
        self._backend: Backend | None = None
        self._inputs: Inputs | None = None
        self._questions: QuestionQueue | None = None
        self._settings: NodeParameters | None = None
        self._state = "unconfigured"
        self._problem = ""
        self._bad_parameters = node_parameters.declare(self)
        self._diagnostics = Diagnostics(self)
        self._status = StatusPublisher(self)
        self._topics = topics = AnswerTopics(self)
        introspection = self.get_parameter("service_introspection").value
        self._query_server = QueryServer(self, self._desk, topics, introspection)
        self._watch_server = WatchServer(self, self._desk, self._observed, topics)
        self._memory_services = MemoryServices(self, lambda: self._backend, self._load_memory, topics.keep)
        group = MutuallyExclusiveCallbackGroup()
        steady = rclpy.clock.Clock(clock_type=rclpy.clock.ClockType.STEADY_TIME)
        period_s = self.get_parameter("diagnostics_period_s").value
        self.create_timer(period_s, self._on_diagnostics, callback_group=group, clock=steady)
        self.create_timer(STATUS_PERIOD_S, self._on_status, callback_group=group, clock=steady)
        # Without use_sim_time this hears of a wall clock that was set back, with it of a bag that starts again.
        threshold = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1_000_000), on_clock_change=True)
        self._jump_handle = self.get_clock().create_jump_callback(threshold, post_callback=self._on_clock_jump)

    # -- lifecycle ------------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Check the parameters, load the network, restore the memory."""
        try:
            if self._bad_parameters:
                raise ValueError("; ".join(self._bad_parameters))
            self._settings = node_parameters.read(self)
            self._backend = self._build(self._settings)
        except Exception as error:
            self._problem = f"cannot configure: {type(error).__name__}: {error}"
            self.get_logger().error(self._problem)
            if not isinstance(error, (ValueError, OSError)):
                self.get_logger().error(traceback.format_exc())
            self._free()
            return FAILURE
        self._problem = ""
        self._state = "inactive"
        for encoder, (name, reason) in self._backend.encoders.items():
            say = self.get_logger().warning if reason else self.get_logger().info
            say(f"{encoder} encoder: {name}" + (f" ({reason})" if reason else ""))
        if not self._backend.trained:
            self.get_logger().warning(f"{self._backend.checkpoint_id}: untrained weights, answers mean nothing")
        return SUCCESS

    @_reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Open the queue for questions and subscribe."""
        assert self._backend is not None
        assert self._settings is not None
        result = super().on_activate(state)
        _settle_heap()
        answerer = self._backend.answerer

        def answer(ticket: Ticket) -> Answer:
            return answerer.ask(
                ticket.question,
                deadline=ticket.deadline,
                cancel=ticket.cancel,
                on_text=ticket.on_text,
                on_stage=ticket.tell_stage,
                view=ticket.view,
            )

        def ready(ticket: Ticket) -> bool:
            ticket.view = answerer.look(ticket.question, deadline=ticket.deadline, cancel=ticket.cancel)
            return ticket.view is not None

        self._questions = QuestionQueue(
            answer,
            ready,
            ahead=answerer.ahead,
            size=answerer.size,
            pace=self._backend.pace,
            max_questions=self._settings.max_questions,
        )
        self._inputs = Inputs(self, self._settings, self._backend.observer, self._backend.grounding)
        self._state = "active"
        self._status.forget()
        self._status.publish(self._backend)
        return result

    @_reported
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening, let what was heard sink in, flush."""
        self._state = "inactive"
        self._stop_listening("the node was deactivated")
        if self._backend is not None:
            self._backend.observer.drain()
            if self._backend.observer.failure is not None:
                raise self._backend.observer.failure
            self._status.publish(self._backend)
            self._backend.flush()
        return super().on_deactivate(state)

    @_reported
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the network and the memory."""
        self._free()
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Leave from any state as cleanly as from inactive."""
        self.stop("the node shuts down")
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an exception in a transition: free everything and be unconfigured again."""
        self._problem = self._problem or f"a transition failed in state {state.label}"
        self._stop_listening("the node failed")
        self._free()
        return SUCCESS

    def stop(self, reason: str) -> None:
        """Answer what is open with CANCELED, stop listening, flush and free; safe in any state, and twice."""
        self._stop_listening(reason)
        if self._backend is not None:
            self._backend.flush()
        self._free()
        self._state = "finalized"

    def _stop_listening(self, reason: str) -> None:
        self._watch_server.close(reason)
        questions, self._questions = self._questions, None
        if questions is not None:
            questions.close(reason)
        inputs, self._inputs = self._inputs, None
        if inputs is not None:
            inputs.close()

    def _free(self) -> None:
        backend, self._backend = self._backend, None
        self._state = "unconfigured"
        if backend is not None:
            backend.close()
            backend.free()
            gc.unfreeze()

    def _load_memory(self, name: str) -> Backend | None:
        """Go on with another stored memory; None unless inactive. Raises what reopening raises, nothing changed."""
        backend = self._backend
        if self._state != "inactive" or backend is None or backend.reopen is None:
            return None
        if name != backend.persistence.store.place.name:
            self._backend = backend.reopen(name)
            backend.flush()
            backend.close()
        return self._backend

    # -- questions ------------------------------------------------------------------------------------------------

    def _desk(self) -> Desk | str:
        questions, settings = self._questions, self._settings
        if questions is None or settings is None:
            return f"the node is {self._state}, not active"
        return questions, self._complete, self._timeout_s

    def _complete(self, question: Question) -> Question:
        """Fill in the node's defaults; raises MessageError for a source that is not one of its own."""
        settings = self._settings
        assert settings is not None
        node_parameters.check_sources(settings, question.sources)
        return replace(question, max_evidence=question.max_evidence or self.get_parameter("max_evidence").value)

    def _timeout_s(self, question: Question) -> float:
        wanted_s = question.timeout_s or self.get_parameter("default_timeout_s").value
        return min(wanted_s, self.get_parameter("max_timeout_s").value)

    def _observed(self) -> tuple[str, int]:
        """Id of the memory, and the stamp up to which each source has been observed."""
        backend = self._backend
        return (backend.observer.memory_id, backend.observer.complete_ns) if backend is not None else ("", 0)

    # -- time -----------------------------------------------------------------------------------------------------

    def _on_clock_jump(self, jump: TimeJump) -> None:
        backend = self._backend
        if backend is None or jump.clock_change == ClockChange.ROS_TIME_NO_CHANGE and jump.delta.nanoseconds >= 0:
            return
        self.get_logger().warning(f"ROS time jumped by {jump.delta.nanoseconds / 1e9:.3f} s: a new session begins")
        backend.observer.restart()

    def _on_diagnostics(self) -> None:
        inputs = self._inputs
        if inputs is not None:
            inputs.find_types()
        watches = self._watch_server.open
        self._diagnostics.publish(self._state, self._problem, self._backend, inputs, self._questions, watches)

    def _on_status(self) -> None:
        backend = self._backend
        if backend is None:
            return
        self._status.publish(backend)
        self._topics.keep(backend.observer.memory_id)  # a new session began, or another memory was loaded
        if self._state == "active" and backend.observer.failure is not None:
            # The way from active into the error state leads through a transition that fails; if somebody else's is
            # under way, it fails the same way.
            with contextlib.suppress(rclpy_implementation.RCLError):
                self.trigger_deactivate()


def main(args: Sequence[str] | None = None, build: Callable[[NodeParameters], Backend] = build_backend) -> int:
    """Run the node until SIGINT or SIGTERM; open questions are answered CANCELED before it leaves."""
    # rclpy's own handlers close the context at once, and nothing could be replied any more.
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    # A callback that waits for the interpreter's lock waits so long for its turn; the default is 5 ms.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    executor = spinning.MessagesFirstExecutor(EXECUTOR_THREADS)
    node = MemoryNode(build=build)
    executor.add_node(node)

    def spin() -> None:
        try:
            spinning.spin(executor)
        finally:
            stop.set()

    spinner = threading.Thread(target=spin, name="executor", daemon=True)
    spinner.start()
    stop.wait()
    node.stop("the node shuts down")
    executor.shutdown(timeout_sec=2.0)
    spinner.join(2.0)
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
