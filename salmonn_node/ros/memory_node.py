"""The managed (lifecycle) node: configure loads, activate listens and answers, deactivate stops, cleanup frees."""

from __future__ import annotations

import gc
import threading
import traceback
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import ClockChange, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from salmonn_node.ros import parameters as node_parameters
from salmonn_node.ros.answer_topics import AnswerTopics
from salmonn_node.ros.deferred import reply_always
from salmonn_node.ros.diagnostics import Diagnostics
from salmonn_node.ros.inputs import Inputs
from salmonn_node.ros.memory_services import MemoryServices
from salmonn_node.ros.namesakes import Namesakes
from salmonn_node.ros.open_queue import OpenQueue
from salmonn_node.ros.parameters import NodeParameters
from salmonn_node.ros.query_server import QueryServer
from salmonn_node.ros.status import StatusPublisher
from salmonn_node.ros.transitions import Transitions, reported
from salmonn_node.ros.watch_server import WatchServer
from salmonn_node.runtime.build import Backend, build_backend
from salmonn_node.runtime.settings import Settings

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
STATUS_PERIOD_S = 1.0


def _settle_heap() -> None:
    """Collect garbage now, and exclude all current objects, such as the network, from later collections.

    A full collection stops all threads, for a quarter of a second on two slow cores. In that time, a 30 Hz camera sends
    more images than the QoS history keeps.
    """
    gc.unfreeze()  # include what an earlier memory left behind
    gc.collect()
    gc.freeze()


class MemoryNode(LifecycleNode):
    """A lifecycle node that observes topics, keeps a memory and answers questions.

    Args:
        name: node name.
        build: makes the backend in configure.
        arguments: for rclpy.Node, such as `parameter_overrides` and `cli_args`.
    """

    def __init__(
        self,
        name: str = "salmonn",
        *,
        build: Callable[[Settings], Backend] = build_backend,
        **arguments: Any,
    ) -> None:
        super().__init__(name, **arguments)
        self._build = build
        self._backend: Backend | None = None
        self._inputs: Inputs | None = None
        self._open_queue: OpenQueue | None = None
        self._settings: NodeParameters | None = None
        self._state = "unconfigured"
        self._problem = ""
        self._jump_tolerance_s = 0.0
        self._stopped = threading.Event()
        self._bad_parameters = node_parameters.declare(self)
        self._diagnostics = Diagnostics(self)
        self._namesakes = Namesakes(self)
        self._status = StatusPublisher(self)
        self._topics = topics = AnswerTopics(self)
        self._bad_parameters += [topics.problem] if topics.problem else []
        introspection = self.get_parameter("service_introspection").value
        self._query_server = QueryServer(self, self._questions, topics, introspection)
        self._watch_server = WatchServer(self, self._questions, self._observed, topics)
        self._memory_services = MemoryServices(self, lambda: self._backend, self._load_memory, topics.keep)
        group = MutuallyExclusiveCallbackGroup()
        steady = rclpy.clock.Clock(clock_type=rclpy.clock.ClockType.STEADY_TIME)
        period_s = self.get_parameter("diagnostics_period_s").value
        self.create_timer(period_s, self._on_diagnostics, callback_group=group, clock=steady)
        self.create_timer(STATUS_PERIOD_S, self._on_status, callback_group=group, clock=steady)
        # This detects a wall clock that is set back or, with use_sim_time, a bag that restarts.
        threshold = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1_000_000), on_clock_change=True)
        self._jump_handle = self.get_clock().create_jump_callback(threshold, post_callback=self._on_clock_jump)
        reply_always(self)
        self._transitions = Transitions(self)

    def note_problem(self, text: str) -> None:
        """Log a problem, and show it on /diagnostics until the node is configured again."""
        self._problem = text
        self.get_logger().error(text)

    # -- lifecycle ------------------------------------------------------------------------------------------------

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Check the parameters, load the network, restore the memory."""
        try:
            if self._bad_parameters:
                raise ValueError("; ".join(self._bad_parameters))
            self._settings = node_parameters.read(self)
            self._backend = self._build(self._settings.runtime)
        except Exception as error:
            self.note_problem(f"cannot configure: {type(error).__name__}: {error}")
            if not isinstance(error, (ValueError, OSError)):
                self.get_logger().error(traceback.format_exc())
            self._free()
            return FAILURE
        if self._stopped.is_set():  # SIGINT or SIGTERM came while the network was loaded
            self._free()
            return FAILURE
        self._problem = ""
        self._state = "inactive"
        self._jump_tolerance_s = float(self.get_parameter("clock_jump_tolerance_s").value)
        self._tell_restore(self._backend)
        self._tell_encoders(self._backend)
        where = self._settings.runtime.server.where
        if self._backend.server is not None:
            self.get_logger().warning(f"reader: {where}")
        else:
            self.get_logger().info(f"reader: {where}")
        if not self._backend.trained:
            self.get_logger().warning(f"{self._backend.checkpoint_id}: untrained weights, answers mean nothing")
        return SUCCESS

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Open the question queue and subscribe to the topics."""
        assert self._backend is not None
        assert self._settings is not None
        result = super().on_activate(state)
        _settle_heap()
        self._open_queue = OpenQueue(self, self._settings, self._backend)
        self._inputs = Inputs(self, self._settings, self._backend.observer, self._backend.grounding)
        self._state = "active"
        self._status.forget()
        self._status.publish(self._backend)
        return result

    @reported
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening, process the queued observations, and save the memory."""
        self._state = "inactive"
        self._stop_listening("the node was deactivated")
        if self._backend is not None:
            self._backend.observer.drain()
            if self._backend.observer.failure is not None:
                raise self._backend.observer.failure
            self._status.publish(self._backend)
            self._backend.save()
        return super().on_deactivate(state)

    @reported
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the network and the memory."""
        self._free()
        return SUCCESS

    @reported
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop cleanly from any state."""
        self.stop("the node shuts down")
        return SUCCESS

    @reported
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything after an exception in a transition. The node is then unconfigured again."""
        self._problem = self._problem or f"a transition failed in state {state.label}"
        try:
            self._stop_listening("the node failed")
        finally:
            self._free()
        return SUCCESS

    def stop(self, reason: str) -> None:
        """Answer open questions with CANCELED, stop listening, save and free. Safe in any state and when called twice.

        Raises:
            OSError: the memory cannot be written. Everything is freed nevertheless.
        """
        self._stopped.set()
        try:
            self._stop_listening(reason)
            if self._backend is not None:
                self._backend.save()
        finally:
            self._free()
            self._state = "finalized"

    def _stop_listening(self, reason: str) -> None:
        opened, self._open_queue = self._open_queue, None
        self._watch_server.close(reason)
        if opened is not None:
            opened.queue.close(reason)
        inputs, self._inputs = self._inputs, None
        if inputs is not None:
            inputs.close()

    def _free(self) -> None:
        backend, self._backend = self._backend, None
        self._state = "unconfigured"
        if backend is not None:
            try:
                backend.close()
            finally:
                backend.free()
                gc.unfreeze()

    def _load_memory(self, name: str) -> Backend | None:
        """Replace the running memory with a stored one. Returns None unless the node is and stays inactive.

        Raises what saving and reopening raise; the running memory then stays.
        """
        loaded: list[Backend | None] = [None]

        def load() -> None:
            backend = self._backend
            if self._state != "inactive" or backend is None or backend.persistence is None:
                return
            if name != backend.persistence.store.place.name:
                backend.save()
                self._backend = backend.reopen(name)
                self._tell_restore(self._backend)
                backend.close()
            loaded[0] = self._backend

        self._transitions.run(load)
        return loaded[0]

    def _tell_restore(self, backend: Backend) -> None:
        for note in backend.restore_notes:
            self.get_logger().warning(f"restoring the memory: {note}")

    def _tell_encoders(self, backend: Backend) -> None:
        """Log what runs the encoders. Encoders of which the same is to be told share a line."""
        lines: dict[tuple[str, str], list[str]] = {}
        for encoder, told in backend.encoders.items():
            lines.setdefault(told, []).append(encoder)
        for (name, reason), encoders in lines.items():
            say = self.get_logger().warning if reason else self.get_logger().info
            what = f"{' and '.join(encoders)} encoder{'s' if len(encoders) > 1 else ''}"
            say(f"{what}: {name}" + (f" ({reason})" if reason else ""))

    # -- questions ------------------------------------------------------------------------------------------------

    def _questions(self) -> OpenQueue | str:
        """The question queue of the active node, or a text that says why there is none."""
        return self._open_queue or f"the node is {self._state}, not active"

    def _observed(self) -> tuple[str, int]:
        """Id of the memory, and the stamp in ns up to which every source has been observed."""
        backend = self._backend
        return (backend.observer.memory_id, backend.observer.complete_ns) if backend is not None else ("", 0)

    # -- time -----------------------------------------------------------------------------------------------------

    def _on_clock_jump(self, jump: TimeJump) -> None:
        backend = self._backend
        if backend is None or jump.clock_change == ClockChange.ROS_TIME_NO_CHANGE and jump.delta.nanoseconds >= 0:
            return
        back_s = -jump.delta.nanoseconds / 1e9
        if jump.clock_change == ClockChange.ROS_TIME_NO_CHANGE and back_s < self._jump_tolerance_s:
            backend.observer.count_clock_step()  # two publishers of /clock, or NTP
            return
        self.get_logger().warning(f"ROS time jumped back by {back_s:.3f} s: a new session begins")
        backend.observer.restart()

    def _on_diagnostics(self) -> None:
        inputs = self._inputs
        if inputs is not None:
            inputs.find_types()
        queue = self._open_queue.queue if self._open_queue is not None else None
        failures = getattr(self.executor, "failures", {})
        warning = self._namesakes.look()
        self._diagnostics.publish(
            self._state, self._problem, self._backend, inputs, queue, self._watch_server.open, failures, warning
        )

    def _on_status(self) -> None:
        self._watch_server.end_abandoned()
        backend = self._backend
        if backend is None:
            return
        self._status.publish(backend)
        self._topics.keep(backend.observer.memory_id)  # a new session began, or another memory was loaded
        if self._state == "active" and backend.observer.failure is not None:
            # Only a failing transition leads from active to the error state, so start one. If a caller's transition is
            # running, it fails in the same way.
            self._transitions.run(self.trigger_deactivate)
